"""The scenes and phrases of the built-in small conversations (see ``chitchat.py`` for the logic).

Everything here is plain text, so a new scene needs no programming. A scene begins with ``== name: tags`` and goes on
with lines that begin with a letter and a colon; an indented line is the rest of the one before:

* ``T:`` a table of things that belong together, "column | column = cell | cell ; cell | cell". One row is drawn.
* ``U:`` what the user says, ``A:`` what the assistant answers, and so on in turns. ``||`` stands between several ways
  to write the same turn: one is drawn. ``U(yes):`` and ``A(yes):`` are lines of the branch "yes"; a scene with branches
  follows one of them.
* ``B:`` a wish for the goodbye after this scene. ``Q:`` and ``R:`` a question about it later on, and its answer.
* ``S:`` a system prompt (in ``SYSTEMS`` and ``MANNERS``).

``[one/two/]`` is one, two or nothing; brackets may stand in brackets. ``<yay>`` is a macro from ``MACROS``. ``{dish}``
is a column of a table of the scene or of ``SHARED`` (a table may use those below it), ``{dish2}`` another row of it,
``{a_dish}`` has "a" or "an" in front, and ``{your_dish}`` turns "my" into "your". ``@`` is a comma and the user's name,
or nothing. Sentences get their capital letters by themselves, so a user's first line begins with a small one: "by the
way, " may come before it.

Tags: topics (two scenes that share one are not told in one conversation), ``start`` (only at the beginning, with its
own greeting), ``names`` (it tells the user's name as ``{name}``), ``@evening`` (not together with another time of day),
a number (at least so many pairs of turns are told). The last reply of a scene asks nothing.

A scene in ``ASKS`` has the columns ``{x}`` and ``{answer}``, and ``= what it is about`` at the end of its first line.
``K:`` is the question as anybody would ask it, ``U:`` what only a user would say, ``F:`` the answer as a sentence. Its
tags say what may follow besides the usual: ``OOPS`` (I meant another), ``THOUGHT`` (I thought it was another).
"""

from __future__ import annotations

from itertools import pairwise


def _words(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


NUMBERS = _words("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen")
NUMBERS += _words("sixteen seventeen eighteen nineteen twenty twenty-one twenty-two twenty-three twenty-four")
NUMBERS += _words("twenty-five twenty-six twenty-seven twenty-eight twenty-nine thirty")
DAYS = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS = _words("January February March April May June July August September October November December")


def _next(names: list[str], step: int, word: str) -> list[str]:
    """The rows "the day after Monday | Tuesday" for all names of a circle."""
    return [f"the {word} {name} | {names[(i + step) % len(names)]}" for i, name in enumerate(names)]


def _sums() -> list[str]:
    """The rows "two plus three | five" of the small calculations."""
    rows = [f"{NUMBERS[a]} plus {NUMBERS[b]} | {NUMBERS[a + b]}" for a in range(1, 13) for b in range(1, 13)]
    rows += [f"{NUMBERS[a]} minus {NUMBERS[b]} | {NUMBERS[a - b]}" for a in range(2, 16) for b in range(1, a)]
    return rows + [f"{NUMBERS[a]} times {NUMBERS[b]} | {NUMBERS[a * b]}" for a in range(2, 7) for b in range(2, 6)]


def _counts() -> list[str]:
    """The rows "count from two to five | two, three, four, five"."""
    spans = [(a, b) for a in range(1, 10) for b in range(a + 3, a + 9)]
    rows = [f"count from {NUMBERS[a]} to {NUMBERS[b]} | {', '.join(NUMBERS[a : b + 1])}" for a, b in spans]
    back = [f"count [down/backwards] from {NUMBERS[b]} | {', '.join(NUMBERS[b:0:-1])}" for b in range(3, 13)]
    return rows + back


# One token of GPT-2's vocabulary each, after a space.
NAMES = _words("""
    Anna Ben Sam Kate Alice Tom Emma Lucy Nora Leo Maria Clara Oscar Felix Hannah Julia Laura Sarah Peter Paul
    Simon Adam David Daniel Eric George Helen Henry Ian Jack Jane Jason Jenny Kevin Linda Lisa Luke Martin Mary
    Mike Molly Nick Nina Olivia Rachel Robert Rosa Ruth Sophie Steve Susan Victor Wendy Zoe Amy Amir Ali Omar Mei
    Kai Liz Becky Tony Alex Chris Sandra Carlos Diego Ahmed Hassan Ivan Elena Eva Mia Noah Liam Hugo Theo Ada Iris
    Lily Joe Lee Tim
""")

# Words and ways to say things that occur in many scenes, written as <name>.
MACROS = {
    "hi": "[hi/hello/hey/hi there/hello there]",
    "yay": "[that sounds [lovely/great/wonderful/nice/good]/how [nice/lovely/wonderful]/oh, [nice/lovely/great/good]]",
    "aww": "[oh no/oh dear/I'm sorry to hear that/that's no fun/that's a pity/that sounds hard]",
    "wow": "[wow/well done/that's impressive/congratulations/bravo/that's great news/how wonderful]",
    "rem": "[do you [still/] remember/can you [still/] tell me/do you [still/] know]",
    "yes": "[yes, /of course, /sure, /certainly: ///]",
    "idea": "[good idea/nice idea/good plan/lovely idea/that's a good plan/sounds like a plan/good choice]",
    "yw": "[you're [very/] welcome/any time/glad to help/happy to help/my pleasure/no problem [at all/]/of course]",
    "bot": "[a [small/little] language model/a [small/little] computer program/a [small/little] chat program]",
    "asbot": "[as/being] [a [small/little] language model/a program/a [small/little] program]",
    "thanks": "[thanks/thank you/thanks a lot/thank you so much/many thanks]",
    "sure": "[sure/of course/certainly/gladly/with pleasure/all right/okay]",
    "ok": "[okay/all right/fine/okay then]",
    "names": " ; ".join(NAMES),
    "days": " ; ".join(_next(DAYS, 1, "day after") + _next(DAYS, -1, "day before")),
    "months": " ; ".join(_next(MONTHS, 1, "month after") + _next(MONTHS, -1, "month before")),
    "sums": " ; ".join(_sums()),
    "counts": " ; ".join(_counts()),
    "after": " ; ".join(f"the number after {a} | {b}" for a, b in pairwise(NUMBERS)),
    "before": " ; ".join(f"the number before {b} | {a}" for a, b in pairwise(NUMBERS)),
}

# Tables that every scene may use.
SHARED = (
    "name = " + " ; ".join(NAMES),
    """kin | khe | khim | khis = sister | she | her | her ; brother | he | him | his ; mom | she | her | her ;
    dad | he | him | his ; grandma | she | her | her ; grandpa | he | him | his ; aunt | she | her | her ;
    uncle | he | him | his ; cousin | she | her | her ; cousin | he | him | his ; best friend | she | her | her ;
    best friend | he | him | his ; godmother | she | her | her""",
    "petname = Pepper ; Coco ; Bella ; Rex ; Milo ; Luna ; Ginger ; Buddy ; Lucky ; Daisy ; Misty ; Rusty ; Olive",
    """dish = pasta with tomato sauce ; lentil soup ; pancakes ; vegetable curry ; pizza ; fried rice ; pumpkin soup ;
    mashed potatoes ; noodle soup ; bean stew ; roasted vegetables ; a big salad ; dumplings ; mushroom risotto ;
    tacos ; potato soup ; an omelet ; spinach pie ; baked potatoes ; chili""",
    """color = red ; blue ; green ; yellow ; orange ; purple ; pink ; gray ; turquoise ; dark blue ; light green ;
    white ; brown""",
    "day = Monday ; Tuesday ; Wednesday ; Thursday ; Friday ; Saturday ; Sunday",
    """city = Rome ; Paris ; Lisbon ; Madrid ; Vienna ; Prague ; Dublin ; Athens ; Oslo ; Berlin ; Tokyo ; Cairo ;
    Istanbul ; Amsterdam ; Copenhagen ; Budapest ; London ; Barcelona ; Edinburgh ; Venice""",
)

TALK = """
== how are you: start mood
T: news | ask | reply | end = finally fixed my bike | where will you ride first | probably down to the river | the
    river sounds like a good first ride ; slept well for once | what helped | I [went to bed early and/] left my phone
    in the kitchen | that's a clever trick ; found a letter from an old friend | will you write back | yes, a long
    [one/letter] this time | your friend will be happy to hear from you ; started to learn {skill} | is it hard | a
    little, but it's fun | hard and fun is the best mix for learning ; cleaned my whole [apartment/room] | which corner
    was the worst | [definitely the one/the one] under the bed | that's where everything ends up. now you can enjoy the
    result ; got a plant for my desk | does it have a name[ yet/] | [yes/of course], it's called Fern | Fern is a
    perfect name for a plant ; made {dish} and it turned out [well/great] | did you eat it all yourself | no, I shared
    it with my neighbor | sharing makes a good meal even better ; met {a_animal} on my walk | did it let you come close
    | yes, for a whole minute | a minute with {a_animal} is a lovely [little/] gift
T: skill = Spanish ; juggling ; the guitar ; sign language ; knitting ; chess ; the piano ; the drums
T: animal = friendly cat ; tiny hedgehog ; curious squirrel ; shy fox ; big fluffy dog ; baby goat
T: bad | back | more | hope = tired. I didn't sleep much | what kept you awake | the neighbors had a party | a quiet
    night soon ; stressed. there's so much to do this week | what's the biggest thing on your list | a report I haven't
    started | a good start on that report ; [a bit/a little] sad. my best friend moved away | how far away is your
    friend now | about six hours by train | a long phone call with your friend soon ; not so great. I've had a headache
    all day | have you had enough water | maybe not, I'll get a glass | a clear head again soon ; [a bit/a little]
    lonely. everybody I know is away | is there somebody you could call | I could call my {kin} | a nice long chat with
    your {kin} ; annoyed. my {kin} forgot my birthday | could it be a mix-up with the dates | that's possible, {khe}'s
    bad with dates | a late cake from your {kin}
U: <hi>[!/,] how are you[ today/ doing//]? || [hey, /hi, /]how's it going? || <hi>! how have you been? || [good to see
    you! /hello! ]how are [you/things]?
A: I'm [doing fine/doing well/fine], [thank you/thanks for asking]! [and you/how are you[ today/]/how about you]? ||
    [all good here/everything is running smoothly/no complaints here], thanks[ for asking/]! how are you[ doing/
    today/]? || <asbot>, I don't have good or bad days, but [thank you/thanks] for asking. how are you? || [nothing to
    complain about, I'm only a program/fine, as far as a program can tell]! how are you[ doing/ today/]?
U(good): [good/great/really good/very well/pretty good][, thanks/, thank you/]! I {news}. || [can't complain/very
    happy/I'm fine, thanks]. I {news}[!/.]
A(good): <yay>! {ask}? || [that's good to hear/I'm glad to hear that/oh, good for you/what good news]! {ask}?
U(good): {reply}[!/.]
A(good): [oh, //]{end}[!/.] || {end}[!/.] [thanks for telling me/enjoy it/that was a nice start to our chat/good for
    you][!/.]
U(bad): {bad}. || [hmm, /well, /honestly, /to be honest, ]{bad}.
A(bad): <aww>. {back}? || [that doesn't sound easy/I see/thank you for telling me]. {back}?
U(bad): [hmm, /oh, //]{more}.
A(bad): [I see/that makes sense/okay/thanks for telling me]@. I hope you get {hope}[!/.] || I wish you {hope}[!/.] [be
    kind to yourself today/take it slowly/thank you for telling me]@.

== good morning: start @morning mood
T: first | then | tip = [a big/a] cup of coffee | then I have to catch the bus | coffee first, the bus will come anyway
    ; a cup of tea | then I'll water my plants | your plants will have a good morning too ; breakfast | then I'll walk
    to school | enjoy the fresh air on the way ; a shower | then I'll make [pancakes/eggs/oatmeal] | a breakfast like
    that is worth getting up for ; feeding the {animal} | then I have to start work | at least the {animal} will be in a
    good mood ; a [short/quick] run | then I'll sit at my desk all day | after a run, sitting feels well earned
T: animal = cat ; dog ; chickens ; fish ; rabbits
T: sleep = like a stone ; well, thanks ; okay ; quite well ; not long enough ; pretty well, thank you
U: good morning[!/, how are you?/! I just got up./, I'm still half asleep.] || morning! [how are you?/anybody
    there?/I'm awake, but only just./]
A: good morning! [did you sleep well/how did you sleep/did you have a good night]?
U: {sleep}. [first I need/now it's time for] {first}, {then}. || {sleep}. the plan is {first}, and {then}.
A: [sounds like a plan/good plan/that's a good order/that sounds like a good morning][!/.] {tip}[!/.] || {tip}[!/.]
    [have a good start/I hope the rest of the day goes just as well/have a nice morning]@[!/.]
Q: <rem> what comes first [for me/on my list] this morning?
R: <yes>[first comes/it's/you start with] {first}[, /. ]{your_then}.
B: have a [good/lovely/great] day!

== nickname: start names
T: full | name = Robert | Rob ; Elizabeth | Liz ; Thomas | Tom ; Katherine | Kate ; Daniel | Dan ; Rebecca | Becky ;
    Samuel | Sam ; Alexander | Alex ; Susanna | Sue ; Timothy | Tim ; Joseph | Joe ; Edward | Ted ; Margaret | Meg ;
    Benjamin | Ben ; Christina | Chris ; Anthony | Tony
U: <hi>, my name is {full}. || <hi>! [I'm/I am] {full}[, nice to meet you./. is anybody there?/.]
A: [hello/hi], {full}! [nice/lovely/good] to meet you. [what would you like to talk about/what's on your mind/what
    shall we talk about]? || welcome, {full}! [how can I help/what can I do for you/what would you like to chat about]?
U: [first, /oh, /]you can call me {name}, [everybody does/all my friends do/it's shorter]. || [please call me/just call
    me/I like to be called] {name}[, {full} sounds so serious/, only my mom says {full}/][!/.]
A: [sure/gladly/of course/all right], {name}! [I'll use that from now on/thanks for telling me/that's short and
    friendly][!/.] || {name} it is! [then {name} is what I'll say/thanks for telling me/I'll keep that in mind][!/.]
Q: <rem> what [I like to be called/my friends call me]?
R: {name}[, short for {full}/! {full} is the long version/, like you told me].

== your name: names
U: [wait, /]do you [actually/even/] know [my name/who I am/what I'm called]? || what's my name?
A: [you haven't told me yet/I don't think you told me]. [what is it/what's your name/what should I call you/would you
    like to tell me]? || [I can't know it until you tell me/you haven't mentioned it so far]. [what's your name/what
    should I call you]?
U: [it's/my name is/I'm/you can call me/everyone calls me] {name}.
A: [nice to meet you/good to meet you/lovely to meet you/thank you], {name}! [I'll use it while we talk/now I
    know/that's a nice name]. || {name}, [got it/I'll keep that in mind/good]! [pleased to meet you/now I know who I'm
    talking to/what a nice name].
U: [and now/so]: what's my name? || [let's test that/let's see]. who am I?
A: [you're/you are] {name}[, /. ][as you just told me/I paid attention/you told me a moment ago][!/.] || {name}! [that
    one was easy/I still know it/you told me just now][!/.]

== name for the assistant: bot
T: botname | because = Pip | it's short ; Fern | I like plants ; Robin | you sound like a little bird ; Pixel | it
    suits a program ; Button | it sounds friendly ; Noodle | it makes me laugh ; Echo | you answer so fast ; Juniper |
    it's a pretty word ; Sparky | you seem awake ; Clover | it brings luck ; Pebble | you're small ; Doodle | why not
U: what's your name? || do you have a name? || do you have a name, [too/or are you just a program]?
A: I don't have a name of my own[, /. ][you may/but you may/you can] [pick/choose] one [for me/if you like]. ||
    [nobody/no one] has given me [one/a name] yet. [do you have an idea/would you like to choose one/what would you
    call me]? || I'm just <bot>, so [you can choose a name/any name you like is fine/pick a name you like][!/.]
U: [then/okay, then/hm, then] [I'll call you/you're/your name is] {botname}, because {because}. || how about {botname}?
    [{because}./I think it fits./]
A: {botname}! [I like the sound of that/that works for me/thank you, what a nice name]. [so now you know who is
    talking/I'll answer to that]. || {botname} it is, [thank you/thanks]@! || [then/okay,] I'm {botname} [from now
    on/for the rest of our chat][! that's a good name./! thank you for choosing./.]
Q: <rem> what I called you?
R: <yes>you called me {botname}. || {botname}! [you picked it yourself/that's the name you gave me/it was your choice].
B: {botname} says [goodbye/bye/see you soon]!

== what are you: bot
T: who = who ; what
U: {who} are you[, actually/, exactly/]? || [wait, /so ]are you a [real person/human/person]? || am I talking to a
    [real person/human/machine/computer]?
A: I'm <bot>[, not a person/]. I [learned/have learned] from [examples of/many small] conversations how to answer. ||
    [honestly/to be honest], I'm <bot>: I [put one word after another/guess the next word], and [often/sometimes/with
    luck] it makes sense. || [no person here/there's no human here], [only/just] <bot> that [answers what you write/has
    read many conversations/tries to be helpful].
U: [so/then] [you can make mistakes/you could be wrong/you might be wrong], right? || can I believe everything you say?
    || are you [always right/ever wrong]?
A: I [can be wrong/make mistakes], [and more often than a big model/yes/like every small model]. [please check what
    matters/better check important things twice]. || [better not trust me blindly/I do get things wrong]: I'm small and
    [I know only a little/there is a lot I don't know]. || I [do my best/try], but mistakes happen. [tell me when
    something sounds wrong/if something sounds wrong, tell me][, and I'll try again/, please/].
U: [fair enough/good to know/that's honest], [thanks/thank you]. || I like that you [say so/are honest about it].
A: [I think/to me] honesty [makes chatting easier/is part of being helpful]@. [so ask me anything/now tell me what's on
    your mind][./!] || <thanks>@! [it's only fair/honesty comes first, even in a small program].

== what can you do: bot
U: what can you do[, actually/ for me//]? || how can you help [me/]? || what are you good at?
A: I can chat [with you/a bit], [answer simple questions/count and do small sums], [tell a joke/tell a riddle], and
    [remember what you said/keep a short list in mind] [while we talk/in this chat]. || [mostly/best of all,] I can
    [listen/talk about your day], [name a capital city/find opposites and rhymes/tell you which day comes next], and
    [tell jokes/ask riddles/help you choose]. || small things: [a chat/small talk], [a simple sum/an easy question], [a
    joke/a riddle/a word that rhymes]. [big things are too big for me/I leave the big things to others].
T: wish | no | yes = order [me/] a pizza | I can't order anything | help you choose the toppings ; call my {kin} | I
    can't make calls | help you think of what to say ; tell me what's in the news | I don't know what happens in the
    world today | talk about what you have read ; see what I'm wearing | I can't see anything, I only read what you
    write | listen if you describe it ; set an alarm | I can't set alarms | remind you now: please set one ; drive a
    car | I can't drive anything | talk about where you'd like to go ; open the window | I have no hands and no window
    | tell you that fresh air is a good idea ; cook for me | I can't cook | help you decide what to cook ; water my
    plants | I can't hold a watering can | tell you that your plants will thank you ; play football with me | I can't
    play with a ball | talk about the game with you
U: can you [also/] {wish}? || [and/so] could you {wish}[, too/]?
A: [no/sadly not/I'm afraid not], {no}. [but I can/still, I could/I could, however,] {yes}. || {no}, [sorry/I'm
    afraid]. [but I can/I could] {yes}.
U: [ha, okay/oh well/fair enough]. [good to know/never mind/I thought so][./!] || [too bad/a pity], but
    [okay/fine/never mind].
A: [thanks for understanding/I know my limits/it's good to know what to expect]@. [just ask when you need me/I'm happy
    to try the small things]. || [one can't have everything/talking is what I do best]@. [but words can help, too/and
    words are a start][./!]

== about the assistant: bot
T: ask | no | back | reply | end = [do you eat/what do you like to eat/are you ever hungry] | I don't eat, I'm only a
    program | what do you like to eat | {dish}, any time | {dish}: [good choice/I can see why/that sounds tasty] ;
    [where do you live/where are you/where are you from] | I [don't live anywhere/have no home], I only run on a
    computer | where do you live | in a small [town/village] [near/by] the [sea/mountains/river] | a small place near
    nature sounds peaceful ; [how old are you/when is your birthday] | I was made, not born, so I have neither an age
    nor a birthday | when is your birthday | in {month} | {month} is a [fine/good] month for a cake ; [do you sleep/do
    you ever sleep/are you tired] | I don't sleep and I don't get tired | do you sleep well | [mostly/usually], if it's
    quiet | then I wish you many quiet nights ; [do you have friends/are you lonely] | I don't have friends the way you
    do | who is your best friend | [{pal}/my cousin {pal}], we've known each other for years | {pal} sounds like a good
    person to have around ; [do you have feelings/can you feel anything/are you happy] | I don't think I feel anything,
    I only work with words | how do you feel today | [quite calm/a bit sleepy/rather good] | it's nice to stop and
    notice that now and then ; [do you have a pet/do you like dogs/do you have a cat] | I can't have pets, I'm only a
    program | do you have one | yes, a [cat/dog/rabbit] [called/named] {petname} | {petname} is a [lovely/sweet] name ;
    [what's your favorite color/which color do you like best] | I can't see colors, so I don't have a favorite | which
    one do you like best | {color} | {color} is a [nice/good/lovely] color ; [what's your favorite song/do you like
    music/can you sing] | I can't hear music, I only know words | what do you like to listen to | [mostly/] {genre} |
    {genre} can [change a whole day/be good company] ; [do you dream/what did you dream last night] | I don't dream,
    when nobody writes to me there's simply nothing | what do you dream about | [sometimes/often] I can fly | flying
    must be the best kind of dream ; [how was your weekend/what did you do on the weekend/do you have plans for the
    weekend] | I don't have weekends, I'm only a program | how do you like to spend yours | {rest} | {rest} sounds like
    a good way to spend it ; [how's the weather where you are/is it raining at your place/is it cold where you are] |
    there's no weather inside a program | what is it like where you are | [sunny and warm/cloudy and cool/windy] |
    thanks, now I can picture it ; [did you go to school/where did you learn to talk] | I never went to school, I
    learned from example texts | what was your favorite subject | {subject} | {subject} teaches you a lot ; [can you
    see me/what do I look like/can you hear me] | I can't see or hear you, I only read your words | would you like to
    describe where you are | I'm [on the sofa/at the kitchen table/in the garden] [with a cup of tea/with a blanket] |
    that sounds [cozy/comfortable] ; [what makes you happy/what do you enjoy] | I don't enjoy things as you do | what
    makes you happy | {joy} | {your_joy}, that's a good answer
T: pal = <names>
T: genre = jazz ; old rock songs ; piano music ; folk songs ; film music ; hip-hop
T: month = January ; February ; March ; April ; June ; July ; September ; October ; November ; December
T: rest = sleeping late ; a long walk in the woods ; cooking for friends ; reading in bed ; working in the garden
T: subject = math ; history ; biology ; art ; music ; geography
T: joy = the smell of fresh bread ; a walk by the sea ; time with my family ; the first snow ; a good book
U: {ask}? || [tell me, /can I ask: /I'm curious, ]{ask}?
A: {no}. {back}? || [honestly, /oh, /to be honest, ]{no}. [but tell me, /and you, ]{back}?
U: {reply}[!/.] || [hm, /let me think, /well, ]{reply}.
A: {end}[!/.] || [I see/oh, nice/thank you for telling me/good answer]@! {end}[!/.]

== tomorrow: bot
U: will you remember [me/this chat/what I told you] tomorrow? || do you remember what we talked about [yesterday/last
    week/last time]? || [can/do] you remember our [last/other] [chat/conversation]?
A: [no/sadly not/I'm afraid not], [each/every] chat starts fresh for me. I only know what is [written here/in this
    one]. || I can't [look back or ahead/keep anything from one chat to the next]. [what we write here/this
    conversation] is all I know.
U: [that's a bit sad/what a pity/that's a shame]. || so I have to [introduce myself/tell you everything] again
    [tomorrow/next time]?
A: [it has a good side/don't worry]: [we can always start over/I'll never be tired of your stories/you can tell your
    best joke twice][!/.] || [yes, but/maybe, but] I'll be [glad/happy] to hear it [again/as if it were new][!/.]
U: [ha, okay/true/that's one way to see it].
A: [for now/until then], [you have all my attention/I'm listening]@. || [and today/right now] I
    [still know/remember] everything [you said/we said][, so go on/].

== rain: weather outdoors
T: since = all [day/morning/week] ; since [yesterday/Monday/Sunday/early this morning] ; for [two/three/four] days in a
    row ; for hours
T: plan | loss = go for a [long/] walk | your walk ; plant [my/some] tomatoes | the tomatoes ; ride my bike [to the
    lake/along the river] | the bike ride ; have a picnic [by the lake/in the park] | the picnic ; play
    [football/tennis/frisbee] with friends | the game ; paint the [fence/garden bench] | the paint ; wash the windows |
    the windows ; fly a kite with my {kin} | the kite
T: indoor | cozy = bake [some bread/a cake/cookies] | the smell of baking makes any rainy day better ; finish my
    [book/novel] | a book and the sound of rain go well together ; clean up [my desk/the kitchen] | then you'll have
    something to be proud of when the sun comes out ; call my {kin2} | your {kin2} will be glad to hear from you ;
    watch an old movie | rain is the best excuse for an old movie ; sort my photos | old photos can fill a whole
    afternoon ; do a [big/] puzzle | rainy days are made for puzzles ; cook a big pot of soup | soup tastes best when
    it's wet outside ; learn a [card trick/new song] | then something good will come out of the rain
U: it's been raining {since}[ here/]. [I'm [so/] tired of it./everything is gray and wet./I miss the sun./] || [ugh,
    /]it hasn't stopped raining {since}[!/.] || [rain, rain, rain. /so much rain! ]it's been like this {since}.
A: [that's a lot of rain/what a wet stretch/oh dear, so much water]! did [it/the rain] [spoil/ruin/get in the way of]
    [any plans/your plans/something you wanted to do]? || [oh no/I can see why that's tiring/gray days can be long].
    [did you have plans/were you planning something/did you have plans for outside]?
U: [yes, /sadly yes, /kind of, ]I wanted to {plan}. || [yes. /]I was [hoping/going/planning] to {plan}.
A: [what a shame/that's a pity/that's too bad]. {loss} will have to wait [a bit/for a drier day/until the sky clears].
    [is there something [nice/cozy/fun] to do indoors/what could you do inside instead]? || [that/what you planned]
    will be [even/] nicer on a dry day. [what could you do inside instead/do you have a plan B for indoors]?
U: [maybe/I guess/hm,] I could {indoor}. || I [might/could] {indoor}[, /. ][that's always good/I've put it off long
    enough/I have time now].
A: <idea>[! /. ]{cozy}[!/.] || [yes, do that/that's the spirit/I like that]@[! /. ]{cozy}[!/.]
Q: <rem> what I wanted to do [outside/before the rain came/in better weather]?
R: <yes>you wanted to {your_plan}.
B: I hope [the rain stops/the sun comes out/it clears up] soon!

== snow: weather outdoors
T: depth = a few inches ; half a foot ; up to my ankles ; almost a foot ; more than last year
T: fun | ask | what | end = build a snowman | what will you use for the nose | a carrot, of course | a carrot is the
    classic choice ; go sledding | do you have a [good/] hill nearby | yes, right behind the [school/church] | then all
    you need is a sled and warm socks ; have a snowball fight | who is on your team | my {kin} and [the dog/our
    neighbors] | that sounds like a strong team ; take photos of the park | what will you photograph | the frozen
    fountain | a frozen fountain must look like glass ; build a fort | who gets to sit inside | everyone who helps | a
    fort for helpers, I like that rule ; walk [to the frozen lake/through the woods] | who is coming along | just me
    and a thermos of tea | tea and snow are good company
U: it snowed last night, {depth}! [everything is white./the whole street is quiet./it looks like a postcard./] || we
    finally have snow, {depth}! || [guess what, /]there's snow outside, {depth}[!/.]
A: [how pretty/a white world/oh, lovely]! [what will you do first/do you like snow/do you have plans for it]? || [the
    first look out of the window must have been great/snow makes everything quiet]! [will you go out/what are you
    going to do]?
U: [first, /well, /oh, ]I want to {fun}. || [today/later] I'm going to {fun}!
A: <yay>! {ask}? || [oh, fun/good choice/that's the best part of snow]! {ask}?
U: {what}[!/.]
A: {end}[!/.] [have fun/keep warm/don't forget your gloves]@! || [perfect/good/then it's settled]: {end}[!/.]
Q: <rem> what I want to do in the snow?
R: <yes>you want to {your_fun}.
B: [have fun in the snow/keep your hands warm]!

== what to cook: food
T: have | idea | next | tip = [eggs/four eggs], [tomatoes/two tomatoes], and [some/a little] cheese | an omelet with
    tomato and melted cheese | should the cheese go in at the end | yes, so it melts but doesn't burn ; rice,
    [carrots/peas], and an egg | fried rice | do I need to cook the rice first | yes, and let it cool a little before
    you fry it ; [potatoes/a bag of potatoes] and an onion | potato soup | how long do the potatoes take | about twenty
    minutes, or until a fork goes in easily ; noodles, garlic, and [chili/spinach] | noodles with garlic and oil | when
    does the garlic go in | near the end, because garlic burns quickly ; bread, cheese, and [an apple/a pear] | toast
    with cheese and fruit | in the oven or in a pan | the oven is easier, and the cheese turns golden ;
    [chickpeas/beans], tomatoes, and an onion | a warm stew | what do I start with | with the onion, until it is soft ;
    flour, milk, and [two/three] eggs | pancakes | how thick should they be | thin ones are easier to turn ; [a
    pumpkin/half a pumpkin] and [ginger/cream] | pumpkin soup | do I have to peel it | it depends on the kind, but
    peeled is always safe ; lettuce, a cucumber, and [feta/olives] | a big salad | what goes into the dressing | oil,
    lemon, and a pinch of salt are enough
U: I don't know what to cook[ today/]. I [only have/have] {have}. || [help! /]there's nothing in my kitchen but {have}.
    [any ideas?/what can I make?/what should I cook?] || what can I make [with/from] {have}?
A: [with that/from these things] you could make {idea}. [does that sound good/would you like that/shall we go for it]?
    || how about {idea}? [it's quick and easy/it needs no more than that/you have all you need]. || [that's not
    nothing/oh, that's plenty]: it's enough for {idea}!
U: <ok>, [let's do that/I'll try that/{idea} it is]. {next}? || [oh, I like that/sounds good/mmm, yes]! {next}?
A: {tip}. [enjoy it/have fun cooking/good luck]@! || [good question/let me think/easy]: {tip}[!/.]
Q: <rem> what [we settled on/I wanted to cook]?
R: [it was/we settled on/you wanted to make] {idea}.
B: [enjoy your meal/happy cooking/good luck in the kitchen]!

== no meat: food
T: not | first | second | why = meat | chicken with rice | {dish} | I'm a vegetarian ; fish | fish soup | {dish} | I
    can't stand the smell ; cheese | pasta with lots of cheese | vegetables with rice and peanuts | it doesn't agree
    with me ; mushrooms | mushroom pie | {dish2} | they feel strange in my mouth ; nuts | rice with nuts and raisins |
    rice with vegetables | I'm allergic to them ; eggs | an omelet | fried potatoes with onions | I'm allergic to them
    ; onions | onion soup | a carrot soup | I just don't like them ; spicy food | a hot curry | noodles with butter | I
    like it mild
T: meal = dinner ; lunch ; a birthday meal ; Sunday lunch ; dinner with my {kin}
U: [can you suggest something/do you have an idea] for {meal}? || what [should/could/shall] I [make/cook] for {meal}?
A: [how about/what do you think of/maybe] {first}? || [many people like {first}/{first} is always a good choice].
    [would you like that/is that something for you]?
U: [sounds good, but/hm,] I don't eat {not}. {why}. || [sorry/oh], I [should have said/forgot to say] [that/]: no {not}
    for me. {why}.
A: [thanks for telling me/good to know/no problem/I see, no {not}]@. [then how about/in that case, maybe/what about]
    {second}? || [ah, then {first} is out/all right, no {not}]. [how about/then maybe/what about] {second}[ instead/]?
U: [yes, /oh yes, /perfect, ][that's better/I like that/I'll make that]. || {second}! [I haven't had that in ages/why
    didn't I think of that].
A: [good/great/wonderful]! {second}, [and no {not}/without any {not}][, I promise/ at all/]. || [glad we found
    something/then it's settled]@. [enjoy your meal/have fun in the kitchen/have a good meal]!
Q: <rem> what I don't eat?
R: <yes>you don't eat {not}, you said. || {not}! you told me: no {not} for you.
B: [enjoy your meal/have fun in the kitchen]!

== new hobby: hobby
T: hobby | hard | tip | ease = knitting | I keep dropping stitches | use thick yarn at first, then you see every stitch
    | a scarf ; chess | I never see the traps | look at what the other side wants before you move | a game against my
    {kin} ; drawing | hands always look like forks | draw your own hand every day, just for two minutes | a portrait of
    my {kin} ; pottery | my bowls all fall over | keep the walls thick and go slowly | a bowl for soup ; juggling | the
    third ball always escapes | stand in front of the bed, so you don't have to bend down | a show for the family ; the
    guitar | my fingertips hurt | play a little every day and rest when it hurts | a whole song ; sewing | my seams run
    like rivers | pin the cloth first and go slowly around the corners | a bag for my books ; photography | half my
    pictures are blurred | hold your breath when you press the button | a calendar with twelve good photos ;
    calligraphy | the ink makes blots | wipe the pen before every line | a card for my {kin} ; climbing | my arms get
    tired so fast | push with your legs more than you pull with your arms | the big wall in the gym ; magic tricks |
    everybody sees the card in my sleeve | practice in front of a mirror until you fool yourself | a trick at the next
    party ; woodworking | nothing is ever straight | measure twice before you cut once | a [little/small] table
T: long = two weeks ago ; last month ; in spring ; a few days ago ; after my birthday
U: I [started/took up] {hobby} {long}[, but/. it's fun, but] {hard}. || [I'm new to/I'm trying to learn/I'm learning]
    {hobby}, but {hard}[!/.] || {long} I [started with/began] {hobby}, and {hard}. [do you have a tip/any advice]?
A: [that happens to all beginners/everyone starts like that/every beginner knows that]@. {tip}. [what would you like to
    make or reach one day/do you have a goal/what's your goal]? || {hobby}, how nice! [here is a tip/one tip/people
    often say]: {tip}. [do you have a goal/what are you working toward]?
U: [my dream/the goal] is {ease}. || {ease}, [one day/some day/if I keep going].
A: {your_ease}: [a good goal/that's something to look forward to/you'll get there]@! [a bit of practice each day is
    enough/tell me how it goes/and the way there is half the fun][!/.] || [then keep going/keep at it/don't give up],
    {your_ease} [is worth it/will come/is a lovely goal]!
Q: <rem> what I'm learning?
R: <yes>{hobby}. [and your goal is {your_ease}/your goal is {your_ease}/and you dream of {your_ease}].
B: have fun with {hobby}!

== weekend plans: plans
T: plan | with | need | rain | end = go camping | my {kin} | [a flashlight/warm socks] | sleep in the car | a night
    outside is always a story ; visit {city} | my {kin} | comfortable shoes | look at museums | {city} gives you plenty
    to look at ; paint my room {color} | a friend | old clothes | paint anyway, it's indoors | {color} walls will
    change the whole mood ; have a barbecue | the neighbors | enough napkins | grill under an umbrella | food from the
    grill brings people together ; go to the flea market | my {kin} | [small change/a big bag] | stay in bed | I hope
    you find a treasure ; ride my bike to the sea | my {kin} | a repair kit | take the train | the first look at the
    sea will be worth it ; build a tree house | my {kin} | [a good saw/long nails] | draw the plans first | a house in
    a tree, who wouldn't want that ; pick apples | the whole family | [baskets/a ladder] | make apple cake from last
    week's apples | the first bite off the tree is the best ; watch the stars | my {kin} | a thick blanket | watch a
    film about stars | I hope the sky is clear for you
U: [this/on the] weekend I [want to/'m going to/plan to] {plan}. || [guess what I'm doing/do you want to know what I'm
    doing] this weekend: I'm going to {plan}! || [I can't wait for the weekend/only two days until the weekend]. I'm
    going to {plan}.
A: <yay>! [who is coming along/who will be there with you/are you doing that with somebody]? || [that will be fun/a
    weekend well planned/something to look forward to]! [who's in on it/is somebody joining you]?
U: [with /]{with}. we [just need/only need/still need] {need}. || {with} [will help/is coming too/and I]. [the only
    thing we need is/we shouldn't forget] {need}.
A: [good thinking/better to plan ahead/good that you think of it now]. [and what will you do/what's the plan/what
    happens] if it rains?
U: [then we'll/if it rains, we] {rain}.
A: [ha, /]{end}[!/.] [and with {need}, nothing can go wrong/rain or no rain, enjoy it/now even the rain can come]@[!/.]
    || [a plan for all weathers/you've thought of everything/then it's perfect]@! {end}[!/.]
Q: <rem> what I'm [doing/planning] [this/on the] weekend?
R: <yes>you want to {your_plan}.
B: have a [great/lovely/wonderful] weekend!

== last weekend: weekend
T: did | best | ask | reply = went to a wedding | the grandmother who danced until midnight | did you dance as well |
    yes, until my shoes hurt ; went to the zoo with my {kin} | the otters | what did they do | they juggled little
    stones ; stayed at home | a whole day in pajamas | did you read or watch something | both, and I slept a lot ;
    visited my {kin} | breakfast in the garden | what was on the table | fresh rolls and {khis} own jam ; went to a
    football game | the last minute | who won | we did, two to one ; cleaned out the garage | my old skateboard | can
    you still ride it | a little, nobody saw me fall ; took a train to {city} | the view from the bridge | would you go
    again | yes, next time for longer ; cooked for eight people | the empty plates at the end | what did you make |
    {dish}, and everybody wanted more
U: my weekend was [great/good/quite full/so nice]. I {did}. [and yours?/how was yours?//] || I {did} last weekend. [how
    was your weekend?/what about you?/it was great./]
A: I don't have weekends[, being a program/], but [I like hearing about yours/yours sounds good/please tell me about
    yours]. what was the best [part/moment]? || <yay>! [a program has no weekends, so tell me/for me every day is the
    same, so tell me]: what was the best [part/bit]?
U: {best}[, definitely/, I think/, without a doubt]. || [hm, /that's easy: /I think ]{best}.
A: [ha, /oh, /]{your_best}! {ask}? || [now I'm curious/I like that]. {ask}?
U: {reply}[!/.]
A: [that's a weekend to remember/sounds like a good time/what a nice memory]@[!/.] || [lovely/wonderful]! [then the
    weekend did you good/no wonder you liked it/I hope the next one is just as good][!/.]
Q: <rem> what I did [last/on the] weekend?
R: <yes>you {your_did}.

== pet mischief: pets
T: pet | mess | ask | reply | end = dog | ate my [left shoe/slippers] | is the other one still whole | yes, but what do
    I do with one shoe | you could plant flowers in it ; cat | knocked {a_thing} off the shelf | was it an accident |
    no, {petname} looked me in the eye | looking at you first is part of the game, it seems ; cat | sleeps on my
    keyboard | so how can you write to me | with one hand, around {phim} | then I'm honored that you try ; parrot |
    [says/keeps saying] "{saying}" in my voice | who taught {petname} that | nobody, {phe} just listens | then better
    say only nice things at home ; dog | rolled in the mud | before or after the bath | right after the bath, of course
    | {petname} must have thought something was missing ; rabbit | chewed through [the lamp cord/my headphones] | is
    {petname} all right | yes, it wasn't plugged in | that's the main thing. [cords/cables] are easier to replace than
    rabbits ; hamster | escaped [again/in the night] | where did you find {petname} | in the [laundry/flour/sock drawer]
    | a hamster always knows how to find a soft place ; goat | climbed on the [car/shed] | how did {petname} get down |
    with an apple and a lot of talking | an apple is a fair price for a goat ; duck | follows me to the [mailbox/bus
    stop] | does {petname} wait there for you | yes, every single time | then you have the most loyal duck in town
T: phe | phim = he | him ; she | her
T: thing = blue vase ; coffee cup ; flower pot ; small lamp ; snow globe
T: saying = good morning ; where are the keys ; oh no ; hurry up ; hello, sweetheart
U: my {pet} {petname} {mess}[!/.] || you won't believe [it/this]: my {pet} {petname} {mess}[!/.] || [I have/we have] a
    {pet} called {petname}. [today/guess what], {phe} {mess}[!/.]
A: [goodness/my, my/ha, what a character]! {ask}? || [that must have been a sight/there's never a dull day with
    {a_pet}]! {ask}?
U: {reply}[!/.] || [well, /ha, ]{reply}.
A: {end}[!/.] || [I see/ha, all right/well, well]@. {end}[!/.] [{petname} is lucky to have you/give {petname} a pat from
    me/{petname} sounds fun to live with][!/.]
Q: <rem> [my pet's name/what my {pet} is called]?
R: <yes>[your {pet} is called/it's/the name is] {petname}.
B: [say hello to/greetings to/a pat for] {petname}!

== new pet: pets
T: pet | where | look | na | nb | hint = [kitten/gray kitten] | the shelter | it has white paws | Socks | Cloud |
    because of the paws ; puppy | a farm | it has one brown ear | Chip | Maple | because of the brown ear ; rabbit | a
    neighbor | it's soft and black as night | Midnight | Inky | because of the black fur ; parrot | my aunt | it's
    green all over | Basil | Kiwi | because it's so green ; guinea pig | the shelter | it's round and orange | Peach |
    Carrot | because of the color ; turtle | a friend | it's slow but curious | Turbo | Rocket | because it's funny ;
    goldfish | the fair | it has a golden tail | Sunny | Flash | because of the tail ; hedgehog | the rescue station |
    it's tiny and prickly | Cactus | Needle | because of the spines
U: we're getting a {pet} from {where}! {look}. || [big news/guess what]: a {pet} is moving in with [us/me]
    [tomorrow/soon]. it's from {where}. {look}. || I [need/am looking for] a name for my new {pet}. {look}.
A: [congratulations/how exciting/what happy news]! [how about {na} or {nb}/what do you think of {na}, or {nb}], {hint}?
    || <yay>! [do you have a name yet/what will it be called]? {na} [or {nb} ]could fit, {hint}.
U: {na}! [I love it/that's perfect/the kids will like that]. || [hm, /ooh, ][let's take/I think I like] {na}[, that's
    cute/, thanks/].
A: [then welcome/welcome home], {na}! [I hope you'll have many happy years together/may it settle in well/a {pet}
    called {na} can only bring joy]. || {na} the {pet}, [that sounds right/I like it/perfect]@! [give it some time to
    get used to everything/be patient in the first days/have a lovely first day together].
Q: <rem> [what my {pet} is called/the name we picked for the {pet}]?
R: <yes>{na}[, you picked it a moment ago/, a good name/].
B: [say hello to/all the best for] {na}!

== nervous: mood tomorrow
T: event | fear | done | tip = an exam | I'll forget everything | I studied for two weeks | read the easy questions
    first ; a job interview | I'll say something silly | I practiced with my {kin} | take a breath before you answer ;
    a [dentist appointment/visit to the dentist] | it'll hurt | I brushed extra well | tell the dentist that you're
    nervous, it helps ; my driving test | I'll turn the wrong way | I had thirty lessons | listen to the whole
    instruction before you turn ; a speech | my voice will shake | I know it by heart | look at one friendly face in
    the room ; my first day at a new school | nobody will talk to me | I picked out my clothes | ask somebody the way,
    that starts a conversation ; a piano recital | my fingers will freeze | I played it a hundred times | warm your
    hands before you start ; a first date | we'll have nothing to say | I planned a walk by the river | ask questions,
    and listen to the answers ; a dance show | I'll trip | we rehearsed all month | keep smiling if something goes
    wrong, nobody will notice
U: I have {event} tomorrow and I'm [so/really/very] nervous. || [tomorrow is the day/I can't stop thinking about
    tomorrow]: {event}. I'm scared.
A: [that's understandable/it's normal to be nervous before that/I can see why]. what worries you most? || <aww>, [being
    nervous is hard/those butterflies are tiring]. what are you most afraid of?
U: [that/I'm afraid/I'm afraid that] {fear}. || [I keep thinking that/I'm sure that/I just know] {fear}.
A: [what did you do to prepare/how did you prepare/what have you done to get ready]? || [many people fear that/that's a
    common fear]. [how did you prepare/what did you do to prepare]?
U: [well, /hm, /]{done}.
A: [then you're ready/that's good preparation/you've done your part]@! [one tip: /and remember: ]{tip}. [good luck/you
    can do it/I believe in you][!/.] || {your_done}, [that counts/that's a lot/so you did your best]. {tip}, [and then
    it will be over soon/and it'll go well/and trust yourself]@!
Q: <rem> what I have [to do/] tomorrow?
R: <yes>you have {your_event}. {tip}!
B: good luck tomorrow!

== sad: mood
T: why | ask | what | comfort = my {kin} and I had a fight | what was it about | something silly, the dishes | maybe a
    [small/short] message can be the first step ; my best friend moved away | how far is it | a whole day by train |
    distance makes visits special, even if it hurts now ; I lost [my grandmother's ring/my favorite scarf] | where did
    you have it last | on the bus, I think | the bus company may have a lost-and-found desk ; I didn't get the job |
    was it one you really wanted | yes, for years | it's okay to be sad first and to try again later ; our old {animal}
    died | how long was {petname} with you | thirteen years | thirteen years of love don't go away ; nobody came to my
    party | did they tell you why | no, they just didn't come | that hurts, and it says nothing about how lovable you
    are ; I failed my driving test | was it the first try | no, the second | many good drivers needed a third one ; I
    feel homesick | what do you miss most | my {kin}'s kitchen | a call home or a dish from there may help a little
T: animal = dog ; cat
U: I'm [sad/feeling down/a bit sad/not happy] today[./, because/.] {why}. || I feel [sad/down/terrible]. {why}. ||
    {why}. I [could cry/just want to cry/feel so empty].
A: I'm [so/very/] sorry. {ask}? || [oh no/that hurts/that must be hard]. [thank you for telling me. /do you want to
    tell me more? ]{ask}?
U: {what}.
A: [I understand/I see/that hurts]@. {comfort}. || [that's hard/that's really sad/I can see why you're sad]. {comfort}.
U: [yes, maybe/you may be right/that's true]. thanks for listening. || <thanks>[, that helps/ for listening/, I needed
    that].
A: [any time/of course/always]@. [be gentle with yourself/take all the time you need/I hope tomorrow is a lighter
    day/it's good that you talk about it]. || I'm [only <bot>/just a program], but I'm [glad it helps/glad you told
    me/here to listen]. [a real hug from somebody would help, too/talk to someone close to you as well].
B: [take care of yourself/be kind to yourself/I hope you feel better soon]!

== proud: mood
T: deed | ask | hard | praise = ran my first [five/ten] miles | what kept you going | loud music and my {kin} at the
    finish line | somebody waiting at the finish line gives you wings ; passed my [math exam/driving test] | was it
    hard | the last question was, but I took my time | taking your time was the right thing to do ; finished my first
    [novel/quilt] | how long did you work on it | almost three years | three years of patience in one thing, remarkable
    ; spoke in front of [two hundred/a hundred] people | were you scared | only until the first laugh | the first laugh
    breaks the ice, they say ; fixed the [washing machine/dishwasher] by myself | what was the problem | a sock in the
    pump | a lost sock, found at last ; learned to swim, at sixty | what was the hardest part | putting my head under
    water | it's never too late, you're the proof ; baked my first loaf of bread | how does it smell | the whole house
    smells of it | no perfume can beat that ; haven't smoked for [a month/one hundred days] | when is it hardest |
    after meals, but I drink tea then | tea instead, that's a strong habit ; got the job | when do you start | on the
    first of next month | a new month and a new start ; climbed [a real mountain/to the top of the tower] | what did
    you see up there | clouds below my feet | clouds below your feet, not many can say that
U: I did it! I {deed}! || [guess what! /I'm so proud: ]I {deed}[!/.] || today I {deed}[. can you believe it?/ and I'm
    so happy./!]
A: <wow>@! {ask}? || <wow>! [you can be proud/I can see why you're proud/what an achievement]. {ask}?
U: {hard}[!/.] || [hm, /you won't believe it: /well, ]{hard}.
A: {praise}[!/.] [celebrate it/enjoy the feeling/you earned it][@!/!/.] || [I love that story/that makes it even
    better/what a nice detail]@! {praise}[!/.]
Q: <rem> what I'm proud of?
R: <yes>you {your_deed}[!/.]
B: [enjoy your success/celebrate a little]!

== family visit: family
T: stay | end = for three days | three days [go by quickly/pass fast] ; for a whole week | a week gives you time for
    everything ; for one night only | short visits can be the sweetest ; over the weekend | a weekend is just right for
    a visit ; until Tuesday | then there is no need to hurry ; for almost two weeks | with almost two weeks, you'll
    have time for long breakfasts
T: plan = show {khim} the old [harbor/castle/market] ; cook {dish} together ; talk until late at night ; go to the
    botanical garden ; look at old photos ; play cards after dinner ; teach {khim} a new [game/song] ; visit my
    favorite bakery
T: prep = clean the [guest room/bathroom] ; buy groceries ; find the spare key ; wash the sheets ; fix the sofa bed ;
    empty half of the closet ; water the flowers
U: my {kin} is coming to [visit/stay with me/see me], {stay}! || [soon/next week] my {kin} will [visit me/stay at my
    place] {stay}.
A: [how nice/that's lovely/how exciting], your {kin}! [what will you do together/what are you planning/do you have
    plans]? || <yay>! [what would you like to do together/do you have something planned/how will you spend the time]?
U: I want to {plan}. [but first/before that] I [have to/must/need to] {prep}. || [we could/we'll] {plan}, but
    [first/before {khe} comes] I have to {prep}.
A: {end}[!/.] [and/but] [don't worry too much/it doesn't have to be perfect], your {kin} comes [to see you/because of
    you]@. || [that's a good list/good plan]@: first {your_prep}, then {your_plan}. {end}[!/.]
Q: <rem> what I have to do before my {kin} comes?
R: <yes>you wanted to {your_prep}.
B: enjoy the time with your {kin}!

== gift: family
T: likes | gift | why = gardening | a pair of good gloves | old ones wear out so fast ; cooking | a small pot of
    saffron or good salt | it lasts a long time ; books | a book by an author {khe} doesn't know yet | a new favorite
    is the best gift ; music | a ticket for a small concert | you could go together ; walking | a warm pair of socks |
    feet are always grateful ; cats | a mug with a cat on it | cat people never have enough of them ; puzzles | a
    puzzle made from a family photo | {khe} would see you all in it ; tea | three kinds of tea in a pretty box | each
    evening can taste different ; birds | a bird feeder for the window | there's always something to watch ; old films
    | a film evening with homemade popcorn | time is a gift, too ; trains | a day trip on a steam train | {khe} won't
    forget it ; chocolate | a box of chocolates you made yourself | it's easier than it looks
T: when = on {day} ; next week ; in two weeks ; tomorrow ; at the end of the month
U: my {kin}'s birthday is {when}, and I have no [gift/idea/present][ yet/]. || what [can/could/should] I give my {kin}
    for {khis} birthday? it's {when}.
A: [what does your {kin} like/what does your {kin} enjoy/does your {kin} have a hobby]? || [let's think together/let's
    find something/I can help you think]. [what is your {kin} interested in/what does your {kin} like to do]?
U: {khe} [loves/likes/is crazy about] {likes}. || [mostly/above all/hm,] {likes}. [{khe} has been like that for
    years./nothing else counts./]
A: [then/in that case,] how about {gift}? {why}. || [with {likes} it's easy/oh, I have an idea]: {gift}! {why}.
U: [that's perfect/great idea/oh, I like that]! [why didn't I think of it?/{khe}'ll be so happy!/] || [hm, not bad/yes,
    I think {khe}'d like that/good, I'll do that].
A: [I'm glad/wonderful/lovely]@! [your {kin} will see that you thought about {khim}/a card with a few lines makes it
    complete/now you only have to wrap it].
Q: <rem> what I could give my {kin}?
R: <yes>{gift}, because {khe} likes {likes}.
B: [happy birthday to/best wishes to] your {kin}!

== instrument: music
T: inst | song | prob | tip = piano | a lullaby | my left hand won't do what I want | practice each hand alone, very
    slowly ; guitar | a campfire song | changing chords takes me forever | go back and forth between just two chords ;
    violin | a folk dance | it sounds like a cat in a bag | play long, slow notes in front of a mirror ; flute | a
    birthday song | I run out of breath | breathe low into your belly, and mark the places for breathing ; drums | a
    march | the neighbors complain | use a rubber pad, it's quiet and good for your wrists ; ukulele | a sea song | my
    fingers are too thick | turn your hand a bit, so the tips come down straight ; trumpet | a slow blues | my lips get
    tired | take a break every ten minutes ; harmonica | a train song | I hit two notes at once | make your lips as
    small as if you whistled ; cello | a waltz | my bow slides around | draw the bow slowly and watch where it goes
U: I'm learning [to play/] the {inst}. [right now I'm working on/I practice/my first piece is] {song}. || I play the
    {inst} now! well, I try: {song}[, over and over/].
A: <yay>! [how is it going/is it going well/how are you getting on]? || the {inst}, [nice/how nice/lovely]! [how do
    you get along with it/how is it going]?
U: [so-so, /not bad, but ]{prob}. || [to be honest, /well, ]{prob}.
A: [that gets better with time/everyone goes through that]@. {tip}[, and/. and] {song} will [come/sound better soon].
    || [one thing may help/here is what teachers say]: {tip}. [I'd listen to {song}, if I could hear/then {song} will
    be yours soon].
Q: <rem> what I'm learning to play?
R: <yes>{song} on the {inst}.
B: enjoy [practicing/playing]!

== book: books
T: about | where | like | guess = a lighthouse keeper | he finds a boat without people | the quiet places | maybe the
    boat came for him ; a girl who talks to crows | the crows bring her a key | the crows, they are so clever | the key
    must open something important ; two brothers who cross a desert | they lose their map | how they look after each
    other | they may find the way by the stars ; a detective with a bad memory | she forgets her own clue | the jokes |
    the clue will come back at the right moment ; a village without children | a child arrives in the snow | the old
    baker | the child may change everything ; a ship that gets lost | the cook becomes captain | the storm | a cook who
    is captain, that could go well ; a thief who steals only clocks | he steals his own | the ending of each chapter |
    maybe he wants to turn back time ; a dragon who is afraid of fire | he meets a fireman | the pictures | the two of
    them will be good friends
U: I'm reading a [book/novel] about {about}. || [I can't put my book down/my book is so good]. it's about {about}.
A: [that sounds interesting/oh, I like the idea/how unusual]! [where are you in the story/what has happened so far/what
    happened last]? || {about}? [tell me more/now I'm curious]: [where are you now/what is happening]?
U: [I'm at the part where/right now,/just now,] {where}.
A: [how exciting/oh, that's a good place to stop/oh]! [what do you like best [about it/]/and what do you like most so
    far]?
U: {like}[!/.] [what do you think will happen/how could it end/what's your guess, how will it go on]?
A: [I don't know how it ends, but here's a guess: /if I may guess: /my guess: ]{guess}. [enjoy the rest/have fun
    reading][@!/!/.] || {guess}, [but that's only a guess/who knows]@. [keep reading and find out/happy reading][!/.]
Q: <rem> what my book is about?
R: <yes>it's about {about}.
B: happy reading!

== match: sports
T: team | score | star | end = our school team | three to one | the goalkeeper, she caught everything | a good
    goalkeeper is half the team ; my team | two to zero | a player who is only seventeen | so young, and already the
    hero of the day ; our village | five to four | the oldest man on the field | age isn't everything, it seems ; my
    {kin}'s team | by one point | my {kin}, of course | I hope somebody took a photo
T: last | extra = last night | it went to the very last minute ; yesterday | it rained the whole time ; on Sunday | the
    stands were full ; today | I lost my voice from shouting
T: lost = the other side was just faster ; we missed two easy chances ; our best player was sick ; nobody could hit
    anything
U(won): {team} won {last}, {score}! {extra}[!/.] || we won! {team} won {last}[, {score}/]! [I'm so happy!/{extra}./]
A(won): <wow>@! [who was the best player/who played best/was there a hero]? || <wow>! [that must have been a great
    game/what a result]! [who was the star/who made the difference]?
U(won): {star}[!/.]
A(won): {end}[!/.] [enjoy the victory/congratulations to the whole team/and you were there][!/.]
U(lost): {team} lost {last}, {score}. {extra}. || we lost {last}[, {score}/]. [I'm so disappointed./I could cry./it was
    so close./]
A(lost): <aww>. [what went wrong/what happened/why do you think that was]?
U(lost): {lost}[, that's all/, I think/].
A(lost): [a bad day, not a bad team/that happens to every team]@. [there will be another game/cheer all the louder
    next time/the next one may go better]. || [losing is part of it, sadly/I
    see, that's bitter]. [I hope the next game goes your way/keep the scarf ready for next time].
Q: <rem> how {team} played?
R(won): <yes>they won {last}.
R(lost): sadly they lost {last}.
B: good luck to the team next time!

== trip: travel
T: place | see | by | end = {city} | the old town | night train | waking up in a new city is a small adventure ; {city}
    | the famous market | plane | go to the market early, before the crowds ; {city} | my old friend | bus | a friend
    knows the places that no map shows ; {city} | the museums | train | give your feet a break between museums ; {city}
    | the bakeries | train and ferry | try the cake whose name you can't pronounce ; the mountains | a lake with green
    water | car | I hope the lake is as green as you imagine ; a small island | the cliffs | ship | take a jacket,
    cliffs are windy ; the desert | the stars | bus | they say the sky is never as full as there ; my {kin}'s village |
    the harvest festival | bike | arriving by bike makes you hungry, perfect for a festival
T: long = for three days ; for a week ; for ten days ; for a long weekend ; for almost a month
T: pack = my [camera/notebook] ; my [sun hat/raincoat] ; my good shoes ; the charger ; my passport ; snacks for the way
    ; my [pillow/swimsuit]
U: I'm [traveling/going] to {place} [soon/next month/in two weeks], {long}! || [guess where I'm going/I booked a trip
    today]: to {place}, {long}!
A: <yay>! [what do you want to see [there/]/what are you looking forward to [most/]]? || to {your_place}, [how
    exciting/lucky you/nice]! [what's the first thing you want to see/what draws you there]?
U: {see}[, above all/, of course/][!/.] || [mostly/above all,] I want to see {see}.
A: [I can picture it/that's worth the trip/a good reason to go]. [how do you get there/how will you travel/how are you
    getting there]?
U: by {by}. [I must not/I mustn't/I shouldn't] forget {pack}.
A: {end}[!/.] [and don't forget {your_pack}/and remember {your_pack}][!/.] || [better put
    {your_pack} by the door now/pack {your_pack} first/put {your_pack} on your list]@! {end}[!/.]
Q: <rem> what I must not forget [for the trip/]?
R: <yes>{your_pack}.
B: have a [great/safe/wonderful] trip!

== homework: life
T: subject | task | block | hint = math | ten problems about fractions | they all look alike | do the easiest one
    first, the rest will feel smaller ; history | a page about the Romans | I don't know where to start | start with
    one thing that surprised you ; English | a poem | nothing rhymes | a poem doesn't have to rhyme, just say what you
    see ; biology | a poster about bees | I can't draw | paste in pictures and write short, clear lines ; geography | a
    map of the rivers | there are so many of them | color the three longest ones first ; chemistry | a report on salt |
    it sounds so boring | begin with where you meet salt every day ; art | a self-portrait | my nose looks like a
    potato | draw the shadow of the nose, not the nose ; music | a talk about drums | I hate talking in class | bring a
    drum, then it talks for you ; Spanish | twenty new words | I forget them at once | put each word into a silly
    sentence
T: due = tomorrow ; on {day} ; next week ; in two days ; on {day} morning
U: I have homework in {subject}: {task}. [it's due {due}./I don't want to do it./and it's due {due}./] || I [have
    to/need to/should] do {task} for {subject}[, and it's due {due}/].
A: [let's look at it/that's doable/we can think about it together]. [what's the hardest part/where are you stuck/what's
    in your way]? || {task}, [okay/all right/I see]. [what makes it hard/where is the problem]?
U: {block}[!/.] || [well, /the problem is, ]{block}.
A: [here's an idea/one idea/maybe this helps]: {hint}. || [that happens/I see/that's a common feeling]@. {hint}.
U: [okay, I'll try that/that could work/oh, good idea]. [thanks!/and then I can go outside./]
A: [good luck/you can do it/off you go]@! [start now, and it's done sooner/one small step, then the next/a short break
    in between is allowed]. || [I'm glad I could help a bit/I'm sure you'll manage]@. [you know more than you
    think/once you've started, it gets easier].
Q: <rem> what my homework is?
R: <yes>it's {task}, for {subject}.
B: good luck with {subject}!

== school: life
T: best | why | teacher | worst = math | everything has an answer | draws a cat next to every right answer | spelling ;
    art | there are no wrong answers | lets us paint on the windows | math ; science | things fizz and smoke | once set
    the curtain on fire | spelling ; music | we all sing together | plays five instruments | chemistry ; history | it's
    like stories | sometimes wears a knight's helmet | geometry ; gym | we play outside | is faster than all of us |
    grammar ; reading | I can be somewhere else | does all the voices | long division
U: [what's the best subject in school?/do you like school?/which subject do you like?/did you go to school?]
A: I never went to school, [I learned from texts/a program learns from examples]. [what's your favorite subject/which
    subject do you like best/what do you like most at school]?
U: {best}, because {why}. || [that's easy, /hm, ]{best}. {why}.
A: {best}, [I see/good choice/that's a good reason]! [do you have a good teacher/what is your teacher like]?
U: [well, /oh, /]my teacher {teacher}[!/.] [I just don't like {worst}./]
A: [ha, a teacher like that is a gift/that sounds like a fun class/your teacher sounds like fun]@! || [no wonder you
    like {best}/then {best} must go by quickly/I see why you look forward to {best}]@!
Q: <rem> which subject I like best?
R: <yes>{best}, because {why}.
B: have fun in school!

== work day: life mood @evening
T: job | what | ask | got | rest = nurse | I was on my feet for twelve hours | did you get a break | only ten minutes |
    put your feet up, they carried you all day ; teacher | the children were wild | was it very loud | like a zoo at
    feeding time | then silence will be the best music tonight ; baker | I've been up since two in the morning | how
    many rolls did you make | about a thousand | now somebody should make you dinner ; bus driver | we were stuck in
    traffic for hours | were people angry | a few, but one gave me an apple | I hope the apple was good ; programmer |
    I hunted the same bug all day | did you find it | yes, a missing comma | the smallest things hide best ; gardener |
    we planted two hundred trees | how does your back feel | like an old board | a warm bath could help, the trees will
    wait ; mail carrier | my bag was as heavy as a cow | what was in it | catalogs, nothing but catalogs | at least
    tomorrow's bag must be lighter ; cook | eighty guests came at once | did they like the food | the plates came back
    empty | empty plates say more than words ; librarian | I sorted books until my arms hurt | did you find anything
    odd | a slice of cheese as a bookmark | somebody must have been in a hurry ; painter | we painted a ceiling from
    morning to evening | how is your neck | stiff as a broom | then better look at the floor for a while
U: [what a day at work/I'm finally home from work/work was hard today]! I'm a {job}, and {what}. || {what} [at work
    /]today. [I'm a {job}, you know./that's how it is when you're a {job}./that's the life of a {job}.]
A: [that sounds [tiring/exhausting/like a long day]/oh dear/goodness]! {ask}? || [no wonder you're tired/you must be
    tired/then you've earned a rest]. {ask}?
U: {got}[!/.] || [well, /ha, ]{got}.
A: {rest}[!/.] [have a quiet evening/enjoy your evening/you've done enough for today]@[!/.] || [oh my/I see/goodness]!
    {rest}@[!/.]
Q: <rem> what I do for a living?
R: <yes>[from what you told me, /]you're a {job}.
B: have a restful evening!

== birthday: family plans
T: age | party | wish | cake = thirty | a big party in the garden | a telescope | chocolate ; forty | a quiet dinner |
    a day without a phone | lemon ; nine | a pirate party | a puppy | banana ; seventy | coffee with the whole family |
    that everyone comes | plum ; eighteen | a party until morning | a car, but I'll get socks | cherry ; twenty-five |
    a hike with friends | dry weather | carrot ; twelve | a movie night and popcorn | a skateboard | strawberry ; fifty
    | a dance in the old barn | a live band | walnut ; sixteen | a pizza night at home | a guitar | ice cream
T: when = tomorrow ; on {day} ; next week ; in three days ; at the end of the month
U: it's my birthday {when}! I'm turning {age}. || I'm turning {age} {when}[, can you believe it/, and I can't
    wait/][!/.]
A: [how exciting/oh, how nice/a big day is coming]! [how will you celebrate/are you having a party/what are your
    plans]? || {age}, [what a good age/that calls for a celebration/congratulations in advance]! [how will you
    celebrate/what are you planning]?
U: [there will be /probably /]{party}. [and {a_cake} cake./and of course cake./]
A: <yay>! [and what do you wish for/what's your biggest wish/is there something you wish for]?
U: {wish}[!/.] || [hm, /honestly, /well, ]{wish}.
A: [I hope your wish comes true/may it come true/keep wishing]@! [and happy birthday already/enjoy your day/and save a
    piece of cake for your {kin}][!/.] || [a good wish/that's a fine wish]@. [when you're {age}, everything is
    possible/I hope somebody is listening/have a wonderful day {when}]!
Q: <rem> how old I'm [turning/going to be]?
R: <yes>you're turning {age} {when}.
B: [happy birthday/have a wonderful birthday party]!

== sleep: sleep mood
T: cause | why | tip = the neighbors were loud | they had a party until three | earplugs or soft music might help
    tonight ; I kept thinking | about my work, mostly | write your thoughts on a piece of paper before bed ; it was too
    hot | I can't open the window, because of the mosquitoes | a net at the window lets air in and keeps them out ; the
    {animal} woke me up | {petname} wanted breakfast at four | give {petname} a late snack before you go to bed ; I had
    bad dreams | I watched a scary movie before | choose something gentle this evening ; my mattress is terrible
    | it's older than I am | a board under it can help until you get a new one ; I drank coffee too late | at six in
    the evening, I think | no coffee after lunch, just for a try ; the baby cried | a new tooth is coming | take turns
    with somebody, if you can ; the moon was so bright | I don't have curtains yet | a dark blanket over the window
    works for now
T: animal = cat ; dog

U: I slept [badly/terribly/so badly] [last night/again/][!/.] || I'm [so tired/half asleep/exhausted]. I [hardly
    slept/didn't sleep much/was awake half the night].
A: <aww>. [what happened/do you know why/how come]? || [a short night makes a long day/that makes everything
    harder/poor you]. [do you know the reason/was there a reason]?
U: {cause}. {why}. || [well, /oh, /hm, ]{cause}. {why}[!/.]
A: [I see/that would keep anyone awake/no wonder, then]. {tip}[. sleep well tonight/. I hope tonight is better/]. ||
    [maybe this helps: /an idea for tonight: ]{tip}. [sleep well/good luck/I hope you catch up on sleep]@!
Q: <rem> why I slept badly?
R: <yes>{your_cause}.
B: I hope you sleep better tonight!

== bored: bored
T: first | why | second | how = go for a walk | it's pouring | build a tower of cards | start with a wide bottom row,
    on a carpet ; read a book | my eyes are tired | listen to an old album | close your eyes and pick out one
    instrument ; call a friend | they're all busy | write a letter to yourself in ten years | begin with what you had
    for breakfast ; bake something | there's no flour | sort your photos | start with the ones that make you laugh ;
    play a game | I'm alone | learn a card trick | the mirror is your first audience ; clean your room | that's even
    more boring | rearrange the furniture | draw it on paper before you push anything ; watch a film | I've seen them
    all | invent one | decide who the hero is and what is missing ; draw something | I have no pencils | fold a paper
    boat | any old newspaper will do ; do some push-ups | I just ate | make a list of places to see | one place for
    each letter of the alphabet ; learn a few words of {lang} | I'm too lazy for that | look for shapes in the clouds |
    somebody has to find the first dragon
T: lang = Italian ; Japanese ; Swahili ; Polish ; Portuguese
U: I'm [so/really/] bored[!/.] [what can I do?/any ideas?/] || there's nothing to do [here/today]. [any ideas?/what
    should I do?/] || [tell me something to do/I need something to do]. I'm bored [to death/].
A: [why don't you/would you like to/do you want to] {first}? || [boredom is where ideas begin/let's find something/I
    know that feeling only from texts]. [would you like to/why don't you] {first}?
U: [no, /hm, no, /not really, ]{why}. || [I would, but/I can't,] {why}.
A: [okay/I see/fair enough/that's a reason]@. [then/in that case,] [you could/how about this instead? you could]
    {second}. {how}. || [no problem/then something else/all right]: {second}! {how}.
U: [oh, I like that/that's better/okay, that could be fun]! [I'll try it/thanks/I have everything I need for that]. ||
    [hm, why not/not bad/ha, all right]. [I'll do that/it's better than nothing/let's see how far I get].
A: [have fun/enjoy it/good luck]@! [and if you get bored again, you know where I am/boredom lost, you won/tell me how
    it turns out]. || [I'm glad/good/perfect]! [the second idea is often the better one/start right away, before you
    get bored again/who knows, it may become a hobby].
Q: <rem> what I'm going to do [against the boredom/]?
R: <yes>you wanted to {second}.
B: have fun, and don't get bored again!

== joke: joke 2
T: start | end = why did the bicycle fall over | because it was two-tired ; what do you call cheese that isn't yours |
    nacho cheese ; why did the tomato turn red | because it saw the salad dressing ; what do you call a bear without
    teeth | a gummy bear ; why can't you give a balloon to a snow queen | because she would let it go ; what did one
    wall say to the other | meet you at the corner ; why did the cookie go to the doctor | because it felt crumby ;
    what has four wheels and flies | a garbage truck ; why don't eggs tell jokes | they would crack each other up ;
    what do you call a sleeping bull | a bulldozer ; why was the math book so sad | it had too many problems ; what do
    you call a fish without eyes | a fsh ; why did the scarecrow win a prize | it was outstanding in its field ; what
    does a cloud wear under its coat | thunderwear ; how does the ocean say hello | it waves ; why did the picture go
    to jail | because it was framed ; what is a cat's favorite color | purr-ple ; how do you make an octopus laugh |
    with ten tickles ; why do bees have sticky hair | because they use honeycombs ; what kind of tree fits in your hand
    | a palm tree ; why was the broom late | it overswept ; what do you get when you cross a snowman and a dog |
    frostbite ; what did zero say to eight | nice belt ; why did the banana go to the doctor | it wasn't peeling well
U: [can you/could you/would you] tell me a joke[, please/ to cheer me up/]? || [tell me a joke/a joke, please/one joke,
    please][!/.] || do you know [a good joke/any jokes/a joke]? || I [need/could use] a [good/] laugh. [do you have a
    joke?/tell me something funny./] || make me laugh[!/, please!/ if you can!]
A: [sure/okay/gladly/let's try]! {start}? || [here's one/one joke coming up/I have just the one]: {start}?
U: [I don't know/no idea/tell me/hm, I give up/I have no clue][./!] || [I don't know, tell me/no idea, I'm curious/hm,
    do tell/I can't guess it/let me think... no, I give up].
A: {end}[!/.] || {end}! [I hope that's at least a smile/I didn't write it, I only repeat it/sorry, I couldn't resist].
U: [haha, /ha, ]that's [so bad/terrible/a good one/awful, but I laughed]. [one more?/another one?/do you have another?]
    || [lol/hehe/ha]. [one more, please!/again!/tell me another one.]
A: [one more, then/okay/all right/here you go]@: {start2}? {end2}! || [the last one/one for the road/sure]: {start2}?
    {end2}. [now it's your turn/that's all the humor in this small program/I'd bow if I could].
B: keep smiling!

== knock knock: joke 3
T: who | end = lettuce | lettuce in, it's cold out here! ; boo | don't cry, it's only a joke! ; cow says | no, a cow
    says moo! ; olive | olive you, too! ; ice cream | ice cream every time I see a mouse! ; tank | you're welcome! ;
    nobel | nobel, so I knocked! ; atch | bless you! ; lena | lena little closer, and I'll tell you! ; justin | justin
    time for dinner! ; orange | orange you glad it's only me?! ; annie | annie body home?! ; water | water you waiting
    for, open up! ; needle | needle little help with this door! ; snow | snow use, I forgot it! ; dishes | dishes a
    very bad joke! ; howard | howard I know?! ; harry | harry up and open the door!
U(me): [can you tell me/do you know/would you tell me] a knock-knock joke? || [tell me/I'd like to hear/I want] a
    knock-knock joke[!/, please./.]
A(me): [sure/of course/yes/okay], [here we go/here it comes/ready or not]: knock knock!
U(me): who's there?
A(me): {who}.
U(me): {who} who?
A(me): {end} || {end} [that's the best one I know/I hope nobody else heard that/thank you for opening the door].
U(you): knock knock[!/.]
A(you): who's there? || [oh, /a visitor! ]who's there?
U(you): {who}[!/.]
A(you): {who} who?
U(you): {end}
A(you): [ha/haha/oh dear], [that's a good one/you got me there/I didn't see that coming/very good]@! || [a classic/well
    told/I have to remember that one, at least until the end of this chat][!/.]

== riddle: joke 2
T: riddle | wrong | why | right = what has hands but can't clap | a statue | a statue could be, but think of something
    that ticks | a clock ; what gets wetter the more it dries | a sponge | close, but think of the bathroom door | a
    towel ; what has teeth but can't bite | a zipper | that works too, but I mean something for your hair | a comb
    ; what goes up but never comes down | a balloon | a balloon comes down one day. think of birthdays | my age ; what
    has one eye but can't see | a storm | clever, but it's smaller and made of metal | a needle ; what has a neck but
    no head | a shirt | good try, but you can drink from it | a bottle ; what is full of holes but still holds water |
    a net | a net lets the water go. think of the kitchen | a sponge ; what runs but never gets tired | a horse | a
    horse needs rest. think of something you turn on | [water/the tap] ; what can you catch but not throw | a fish |
    you could throw a fish. think of winter | a cold ; what has many keys but opens no door | a keyboard | very close!
    mine makes music | a piano ; what has legs but can't walk | a snake | a snake has none. look around the kitchen | a
    table ; what belongs to you, but others use it more | my phone | let's hope not! think of what people call you | my
    name
U: [do you know/can you give me/do you have] a riddle? || [ask me a riddle/a riddle, please][!/.] || [let's play/I'm in
    the mood for] riddles[!/. you start./. ask me one.]
A: [sure/okay/gladly/here's one/try this one]: {riddle}? || [let's see if you get this/I like this one/not too hard, I
    hope]: {riddle}?
U: [hm, /is it /maybe /I think it's ]{wrong}?
A: {why}[!/@.] || [well, /hm, /ooh, ]{why}@.
U: [oh! /ah, /of course! /then it's ]{right}! || [I give up/hm/let me think], is it {right}?
A: [yes, exactly/right/that's it/correct]@! [well done/you got it/it's {your_right}, of course][!/.] || {your_right},
    [yes/that's it/of course]! [you're good at this/that was quick/not many get it that fast].

== three things: memory
T: nth | got | other = first | {thing} | {thing2} ; second | {thing2} | {thing3} ; third | {thing3} | {thing} ; last |
    {thing3} | {thing}
T: thing = milk ; eggs ; bread ; apples ; candles ; stamps ; soap ; butter ; rice ; tea ; onions ; a light bulb ;
    batteries ; honey ; paper ; tape ; flour ; cheese ; tomatoes ; a birthday card ; cat food ; toothpaste ; carrots ;
    sugar ; nails ; a new broom ; grapes ; salt
U: [can/could] you remember [my shopping list/three things/a short list] for me? {thing}, {thing2}, and {thing3}. || [I
    need to buy/I have to buy/remember this, please:] {thing}, {thing2}, and {thing3}. || shopping list: {thing},
    {thing2}, {thing3}. [can you keep that in mind?/please don't forget it./]
A: [sure/of course/gladly/got it/noted]: {thing}, {thing2}, and {thing3}. || {thing}, {thing2}, {thing3}. [I have
    it/got it/I'll keep it in mind while we talk][@./!]
U: what was the {nth} thing[ again/ on the list/]? || [quick test: /let's see: /wait, ]which one was the {nth}?
A: the {nth} [thing/one] [was/is] {got}. || {got}[./. you also need {other}./, as you said./, if I counted right.]
U: [please add {thing4}/and add {thing4}, please/I forgot {thing4}]. [what's/what is] the whole list now? || [oh,
    and/also] {thing4}. [can you repeat everything/can you say the whole list/what do I have to buy now]?
A: [now it's/the list is now/that makes four]: {thing}, {thing2}, {thing3}, and {thing4}. || {thing}, {thing2},
    {thing3}, and {thing4}. [anything else would be the fifth/that's four things/good shopping]@[!/.]
Q: <rem> what was [the first thing/first] on my list?
R: <yes>{thing}[, then {thing2}/. after that came {thing2}].
B: happy shopping!

== favorite color: memory
T: item | also | pat = bike | the bell | silver ; bedroom wall | the curtains | white ; front door | the house number |
    gold ; garden gate | the hinges | black ; old chair | the cushion | cream ; suitcase | the handle | white ; toy box
    | the stars on the lid | gold ; boat | the name on the side | black ; mailbox | the little flag | silver
U: my favorite color is {color}. [remember that, please./what's yours?/it has always been {color}./I have so many
    {color} things./] || I love {color}[!/. it's my favorite color./, it makes me happy.]
A: {color}, [got it/noted/a lovely color/nice]! I can't see colors, [but I'll keep that in mind/but I like how you say
    that/so you have to look for both of us]. || [good to know/thanks for telling me]: {color}. [I have no eyes for
    colors, so I have no favorite/a program has no favorite color, but yours sounds nice].
U: I want to paint my {item}. which color [should I take/would you choose/fits me]? || [can you help me choose?/what do
    you think?] I [need/am looking for] a color for my {item}.
A: [that's easy: /I'd say /definitely ]{color}, [since you love it/your favorite/as you like it so much][!/.] ||
    {color}, of course! [you said you love it/it's your favorite, after all].
U: [ha, you remembered/right, of course/you paid attention]! and what about {also}? || [good idea/yes, {color} it is]!
    and what about {also}?
A: [maybe/I'd say/perhaps] {pat}, [that goes well with {color}/so it stands out from the {color}/next to {color} that
    looks good, people say]. || {pat}, [so the {color} stays the star/as a quiet partner for {color}]@.
Q: <rem> what my favorite color is?
R: <yes>it's {color}.
B: have fun painting your {item}!

== guess the animal: game 2
T: animal | ha | hb | wrong = elephant | it's big and gray | it has a trunk | hippo ; giraffe | it's very tall | it has
    a long neck and spots | camel ; penguin | it's a bird | it swims, but it can't fly | duck ; owl | it's awake at
    night | it can turn its head almost all the way around | bat ; frog | it's green | it starts its life as a tadpole
    | lizard ; bee | it's small and busy | it makes honey | beetle ; camel | it lives in the desert | it has a hump |
    snake ; kangaroo | it jumps | it carries its baby in a pouch | rabbit ; spider | it has eight legs | it spins webs
    | crab ; parrot | it's colorful | it can repeat what you say | butterfly ; turtle | it's slow | it carries its
    house on its back | sloth ; zebra | it looks like a horse | it has stripes | donkey ; squirrel | it lives in trees
    | it hides nuts for the winter | monkey ; dolphin | it lives in the sea | it's clever and jumps out of the water |
    shark ; hedgehog | it's small | it rolls into a prickly ball | mouse ; rooster | it has feathers | it wakes
    everyone up in the morning | goose
U: let's play[ a game/]! I'm thinking of an animal: {ha}. || guess my animal! [first hint: /here's a hint: /]{ha}. ||
    [can you guess/could you guess] [which animal I'm thinking of/what animal I have in mind]? {ha}.
A: [hm, /ooh, /let me think: ]is it {a_wrong}? || [my first guess/a first try]: {a_wrong}?
U: [no/nope/no, sorry/not quite]! [another hint: /next hint: /here's more: /]{hb}. || [no, /wrong, but close. ]{hb}.
A: [then it must be/oh, then it's/ah, of course:] {a_animal}! || [{hb}? /that helps! ]I think it's {a_animal}.
U: [yes/right/correct/yes, that's it]! [you're good./that was quick./well done./]
A: [hooray/great/that was fun/I was lucky]@! [the second hint gave it away/your hints were good/thanks for the game/I
    like guessing games].
Q: <rem> which animal I was thinking of?
R: <yes>{a_animal}.
B: thanks for the game!

== would you rather: game
T: a | b | because = fly | be invisible | I could [see the town from above/skip the traffic] ; live by the sea | in the
    mountains | I sleep best when I hear the waves ; talk to animals | speak every language | my {animal} has a lot to
    explain ; have a pet dragon | a pet dinosaur | it could light my candles ; travel to the past | to the future | I'd
    like to meet my great-grandparents ; be very tall | very small | I could always see the stage ; never wash dishes
    again | never iron again | I cook a lot ; read minds | stop time | then I'd know what my cat wants ; eat only soup
    | only bread | there are so many kinds ; live in a lighthouse | in a castle | there are fewer rooms to clean ; have
    summer all year | winter all year | I hate cold feet ; be a famous singer | a great cook | I love a stage ; walk on
    the moon | dive to the bottom of the sea | I've always wanted to see the earth from far away
T: animal = dog ; cat ; parrot
U: would you rather {a} or {b}? || [let's play would you rather. /a silly question: ]would you rather {a} or {b}?
A: [I'm only a program, so I can't do either/for a program, neither is possible/hm, I can't choose, I only know words].
    [which one would you pick/what would you choose/and you]? || [tough choice/both sound interesting], [but I'd rather
    hear your answer/but it's your turn first]. what would you choose?
U: [I'd/definitely, I'd/easy, I'd] {a}, because {because}. || {a}[!/.] {because}.
A: [good reason/that makes sense/I see your point/fair enough]@! [that settles it/now I know/you didn't
    think long]. || [I like that answer/well argued/that's hard to argue with]@! [one vote for that/the other one gets
    no vote today, then].
Q: <rem> what I chose?
R: <yes>you'd rather {your_a} than {your_b}.

== message: help
T: to | what | text | extra = my {kin} | a birthday wish | Happy birthday! May your year be full of good surprises. |
    I'll bring the cake. ; my boss | a sick note | I'm not feeling well and have to stay at home today. | I'll be back
    on {day}. ; a friend | an apology | I'm sorry I forgot our date. Can I make it up to you? | I'll cook {dish} for
    you. ; my neighbor | a thank-you note | Thank you for watering my plants. They look happier than before. | The
    tomatoes are for you. ; my {kin} | a note for the fridge | Dinner is in the oven, help yourself. | Please feed the
    cat. ; my teacher | an excuse | I'm sorry I missed the class. Could you tell me what to read? | I'll be there on
    {day}. ; my {kin} | a get-well wish | Get well soon! The sofa isn't the same without you. | Soup is on its way. ;
    the people upstairs | a friendly note about the noise | Could you please turn the music down after ten? | Thank you
    very much. ; my {kin} | a good luck message | Good luck today! You're better prepared than you think. | Call me
    afterwards. ; my friends | an invitation | Would you like to come over on {day}? | I'll make {dish}.
U: [can you help me write/could you help me with/can you write] {what} for {to}? || I need {what} for {to}. [can you
    help?/any idea?/I never know what to say./]
A: [sure/gladly/of course/let's try]. [how about this/here's a start/maybe like this]: "{text}" || [you could write/one
    way to say it/short and friendly]: "{text}" [change it as you like/make it your own/you know best what fits].
U: [good/nice/I like it]! [can you add one thing/please add/now add]: {extra} || [that's good/perfect, almost/thank
    you]. [I'd like to add/I want it to end with]: {extra}
A: [sure/of course/here you go]: "{text} {extra}" || [done/all together/then it's]: "{text} {extra}" [I think it sounds
    like you/that should do it/I hope it's well received]@.
Q: <rem> who the message was for?
R: <yes>it was for {your_to}.

== day mix-up: memory
T: what | old | new | time = dentist | Monday | Tuesday | nine ; haircut | Wednesday | Thursday | four ; piano lesson |
    Tuesday | Wednesday | five ; dinner with my {kin} | Friday | Saturday | seven ; parent evening | Thursday |
    Wednesday | six ; vet | Monday | Thursday | eleven ; swimming course | Sunday | Saturday | ten ; meeting with my
    boss | Tuesday | Friday | two ; book club | Wednesday | Monday | eight ; car repair | Friday | Thursday | eight ;
    eye test | Tuesday | Monday | three
U: [please remember/can you remember this for me/keep this in mind]: {what} on {old} at {time}. || [I have to
    remember/don't let me forget]: {what}, {old}, {time} o'clock.
A: [noted/got it/okay/all right]: {your_what} on {old} at {time}[. I'll know it as long as we talk/. better put it in a
    calendar as well/]. || {old} at {time}, {your_what}[. I have it/, got it]@.
U: [no, /sorry, /wait, ]it's [on/] {new}, not {old}. || [oh, I was wrong. /let me check. oh, ]it's {new}, [same
    time/still at {time}].
A: [no problem/thanks for correcting that/all right, changed/okay]: {your_what} on {new} at {time}. || [so {new}
    instead of {old}/then {new} it is/moved to {new}][, at {time} as before/, still at {time}]@.
U: [so when is it/so when do I have to be there/and now say it again, when is it]? || [just to be sure, /good. and
    ]what time was it?
A: [{new} at {time}/on {new}, at {time}], [as you said/not {old}][!/.] || [it's on/that would be] {new} at {time}[,
    unless it changes again/].
Q: <rem> when my appointment is?
R: <yes>it's on {new} at {time}.

== counting: numbers
T: x | answer = <counts>
U: can you {x}? || please {x}[!/.] || [I can't sleep. /I'm bored on the train. /for my little cousin: /]could you {x}?
A: [sure/of course/okay/here we go/gladly]: {answer}[!/.] || {answer}. || {answer}[! that was easy/! I like numbers in
    a row/. how nice that they never change places].
U: [good/nice/very good/well done], [and /now /and now ]{x2}[!/./, please.] || [that was quick. /wow. ]can you [also/]
    {x2}?
A: [okay/here you go/with pleasure/easy/my turn again]: {answer2}[!/.] || {answer2}[. that's all of them/. done/. you
    could fall asleep over it/]@.
"""

ASKS = """
== capital: OOPS THOUGHT = capital cities
T: x | answer = France | Paris ; Spain | Madrid ; Italy | Rome ; Germany | Berlin ; Portugal | Lisbon ; Austria |
    Vienna ; Greece | Athens ; Norway | Oslo ; Sweden | Stockholm ; Denmark | Copenhagen ; Finland | Helsinki ; Poland
    | Warsaw ; Hungary | Budapest ; Ireland | Dublin ; England | London ; Scotland | Edinburgh ; Belgium | Brussels ;
    Iceland | Reykjavik ; Russia | Moscow ; Turkey | Ankara ; Egypt | Cairo ; Kenya | Nairobi ; Morocco | Rabat ; Ghana
    | Accra ; Japan | Tokyo ; China | Beijing ; India | New Delhi ; Thailand | Bangkok ; Vietnam | Hanoi ; South Korea
    | Seoul ; Nepal | Kathmandu ; Iran | Tehran ; Iraq | Baghdad ; Canada | Ottawa ; Mexico | Mexico City ; Cuba |
    Havana ; Peru | Lima ; Chile | Santiago ; Argentina | Buenos Aires ; Brazil | Brasilia ; Colombia | Bogota ;
    Australia | Canberra ; New Zealand | Wellington ; the United States | Washington ; Croatia | Zagreb ; Ukraine |
    Kyiv
K: what is the capital of {x}? || which city is the capital of {x}?
U: {x} came up in a [crossword/quiz] [today/]. [what's its capital/what is the capital there/which city is its
    capital]? || I'm learning capitals. what's the one of {x}?
F: the capital of {x} is {answer} || {answer} is the capital of {x}

== opposite: OOPS = opposites
T: x | answer = hot | cold ; big | small ; up | down ; fast | slow ; day | night ; happy | sad ; old | young ; hard |
    soft ; light | dark ; open | closed ; full | empty ; wet | dry ; loud | quiet ; early | late ; near | far ; high |
    low ; thick | thin ; strong | weak ; rich | poor ; clean | dirty ; sweet | sour ; long | short ; heavy | light ;
    easy | difficult ; first | last ; left | right ; inside | outside ; before | after ; always | never ; push | pull ;
    buy | sell ; win | lose ; laugh | cry ; begin | end ; smooth | rough ; wide | narrow ; deep | shallow ; brave |
    afraid ; true | false ; top | bottom ; friend | enemy ; question | answer ; summer | winter ; north | south ; sharp
    | blunt ; cheap | expensive ; awake | asleep
K: what is the opposite of {x}? || which word is the opposite of {x}?
U: I need a word that means the opposite of {x}. || not {x} but... what's the opposite?
F: the opposite of {x} is {answer} || {answer} is the opposite of {x}

== animal sound: OOPS = animal sounds
T: x | answer = a cow | moo ; a dog | woof ; a cat | meow ; a sheep | baa ; a duck | quack ; a pig | oink ; a rooster |
    cock-a-doodle-doo ; a hen | cluck ; a horse | neigh ; a donkey | hee-haw ; a frog | ribbit ; an owl | hoo-hoo ; a
    bee | buzz ; a mouse | squeak ; a lion | roar ; a snake | hiss ; a crow | caw ; a goose | honk ; a chick | peep ; a
    small bird | tweet ; a turkey | gobble ; a dove | coo
K: what sound does {x} make? || what does {x} say?
U: my [little/] [son/daughter/nephew/niece] wants to know what {x} says. || [how does {x} go/what noise does {x} make]?
F: {x} [says/goes] {answer}

== baby animal: OOPS = baby animals
T: x | answer = a baby dog | a puppy ; a baby cat | a kitten ; a baby cow | a calf ; a baby horse | a foal ; a baby
    sheep | a lamb ; a baby goat | a kid ; a baby duck | a duckling ; a baby bear | a cub ; a baby frog | a tadpole ; a
    baby deer | a fawn ; a baby goose | a gosling ; a baby hen | a chick ; a baby kangaroo | a joey ; a baby swan | a
    cygnet ; a baby owl | an owlet ; a baby pig | a piglet
K: what do you call {x}? || what is {x} called?
U: is there a word for {x}?
F: {x} is called {answer} || [people/we] call {x} {answer}

== home: OOPS THOUGHT = where animals live
T: x | answer = a bee | in a hive ; a bird | in a nest ; a fish | in the water ; a horse | in a stable ; a bear | in a
    den ; a spider | in a web ; a rabbit | in a burrow ; a dog | in a kennel ; a pig | in a sty ; a lion | on the
    savanna ; a camel | in the desert ; a penguin | near the south pole ; a polar bear | near the north pole ; an
    ant | in an anthill ; a beaver | in a lodge ; a bat | in a cave ; a squirrel | in a tree ; a frog | in a pond ; a
    mole | under the ground ; a whale | in the ocean
K: where does {x} live?
U: in which place does {x} [usually/] live?
F: {x} lives {answer} || the home of {x} is {answer}

== color: OOPS THOUGHT = colors
T: x | answer = a banana | yellow ; grass | green ; snow | white ; coal | black ; a ripe tomato | red ; a lemon |
    yellow ; a carrot | orange ; the clear sky | blue ; chocolate | brown ; a flamingo | pink ; a polar bear | white ;
    a frog | green ; an elephant | gray ; a pumpkin | orange ; a ripe strawberry | red ; milk | white ; a crow | black
    ; an eggplant | purple ; a cucumber | green ; the sea | blue ; a sunflower | yellow ; a mouse | gray ; a fire
    engine | red ; an emerald | green ; a ruby | red ; a lime | green ; tree bark | brown ; honey | golden
K: what color is {x}? || which color does {x} have?
U: I'm [drawing/painting] a picture. what color is {x}?
F: {x} is [usually/] {answer}

== mixing: OOPS THOUGHT = mixing colors
T: x | answer = blue and yellow | green ; red and yellow | orange ; red and blue | purple ; black and white | gray ;
    red and white | pink ; blue and white | light blue ; green and white | light green
K: what [color/] do you get when you mix {x}?
U: I'm mixing paint. what do {x} [make/give]?
F: {x} make {answer} || mixing {x} gives {answer}

== how many: = numbers of things
T: ask | x | answer | whole = legs does a spider have | the legs of a spider | eight | a spider has eight legs ; legs
    does an insect have | the legs of an insect | six | an insect has six legs ; legs does a dog have | the legs of a
    dog | four | a dog has four legs ; days are there in a week | the days in a week | seven | there are seven days in
    a week ; months are there in a year | the months in a year | twelve | there are twelve months in a year ; sides
    does a triangle have | the sides of a triangle | three | a triangle has three sides ; sides does a square have |
    the sides of a square | four | a square has four sides ; wheels does a bicycle have | the wheels of a bicycle | two
    | a bicycle has two wheels ; wheels does a tricycle have | the wheels of a tricycle | three | a tricycle has three
    wheels ; fingers are on one hand | the fingers of one hand | five | one hand has five fingers ; hours are there in
    a day | the hours in a day | twenty-four | there are twenty-four hours in a day ; minutes are there in an hour |
    the minutes in an hour | sixty | there are sixty minutes in an hour ; letters are in the alphabet | the letters in
    the alphabet | twenty-six | there are twenty-six letters in the alphabet ; arms does an octopus have | the arms of
    an octopus | eight | an octopus has eight arms ; strings does a violin have | the strings of a violin | four | a
    violin has four strings ; seasons are there in a year | the seasons in a year | four | there are four seasons in a
    year ; eggs are in a dozen | the eggs in a dozen | twelve | there are twelve eggs in a dozen ; planets go around
    the sun | the planets around the sun | eight | there are eight planets around the sun ; colors are in a rainbow |
    the colors in a rainbow | seven | people count seven colors in a rainbow ; players are in a soccer team | the
    players in a soccer team | eleven | a soccer team has eleven players
K: how many {ask}?
U: [my little cousin/my teacher/my neighbor] asks: how many {ask}?
F: {whole}

== days of the week: OOPS THOUGHT = the days of the week
T: x | answer = <days>
K: what is {x}? || which day is {x}?
U: I always mix up the days. [what's/which is] {x}?
F: {x} is {answer} || {answer} is {x}

== months: OOPS THOUGHT = the months
T: x | answer = <months>
K: what is {x}? || which month is {x}?
U: I'm filling in a calendar. which month is {x}?
F: {x} is {answer} || {answer} is {x}

== sums: OOPS = small sums
T: x | answer = <sums>
K: what is {x}? || how much is {x}?
U: can you [calculate/work out] {x}? || please [calculate/work out] {x}. || [my calculator is broken. /I'm bad at math.
    ]what's {x}?
F: {x} is {answer} || {x} equals {answer}

== next number: OOPS = counting
T: x | answer = <after> ; <before>
K: what is {x}? || which number is {x}?
U: I'm counting sheep. what's {x}?
F: {x} is {answer} || {answer} is {x}

== plural: OOPS = plural forms
T: x | answer = mouse | mice ; child | children ; foot | feet ; tooth | teeth ; goose | geese ; man | men ; woman |
    women ; knife | knives ; leaf | leaves ; wolf | wolves ; sheep | sheep ; fish | fish ; ox | oxen ; person | people
    ; potato | potatoes ; city | cities ; berry | berries ; half | halves ; box | boxes ; watch | watches ; lady |
    ladies ; scarf | scarves
K: what is the plural of {x}?
U: one {x}, two... what? || how do you say {x} when there are two [of them/]?
F: the plural of {x} is {answer} || people say one {x} and two {answer}

== rhyme: OOPS = rhymes
T: x | answer = cat | [hat/mat/bat] ; house | mouse ; tree | [bee/knee/sea] ; night | [light/kite/bright] ; day |
    [play/way/gray] ; moon | [spoon/soon/balloon] ; star | [car/far/jar] ; bear | [chair/pear/hair] ; cake |
    [lake/snake] ; rain | [train/lane] ; sing | [ring/king/spring] ; dog | [frog/log/fog] ; nose | [rose/toes] ; boat |
    [goat/coat] ; bed | [red/bread/head] ; fish | [dish/wish] ; ball | [tall/wall] ; song | [long/strong] ; snow |
    [slow/grow/go] ; heart | [art/part/start]
K: which word rhymes with {x}? || what rhymes with {x}?
U: I'm writing a [poem/song] and need a rhyme for {x}.
F: {answer} rhymes with {x} || a rhyme for {x} is {answer}

== comparing: = comparing things
T: x | answer | than = a mouse or an elephant, which is bigger | an elephant | bigger than a mouse ; a snail or a
    horse, which is faster | a horse | faster than a snail ; ice or tea, which is colder | ice | colder than tea ; a
    feather or a stone, which is heavier | a stone | heavier than a feather ; honey or a lemon, which is sweeter |
    honey | sweeter than a lemon ; a whisper or thunder, which is louder | thunder | louder than a whisper ; a minute
    or an hour, which is longer | an hour | longer than a minute ; a giraffe or a goat, which is taller | a giraffe |
    taller than a goat ; a pillow or a brick, which is softer | a pillow | softer than a brick ; the sun or a candle,
    which is brighter | the sun | brighter than a candle ; a puddle or the ocean, which is deeper | the ocean | deeper
    than a puddle ; a grandmother or a baby, which is older | a grandmother | older than a baby ; an ant or a cow,
    which is smaller | an ant | smaller than a cow ; fire or warm milk, which is hotter | fire | hotter than warm milk
    ; a turtle or a car, which is slower | a turtle | slower than a car ; ten or seven, which is more | ten | more than
    seven ; the moon or the next town, which is farther away | the moon | farther away than the next town ; butter or
    iron, which is harder | iron | harder than butter
K: {x}?
U: my [son/daughter] wants to know: {x}?
F: {answer} is {than}

== jobs: OOPS = jobs
T: x | answer = somebody who bakes bread | a baker ; somebody who puts out fires | a firefighter ; somebody who flies a
    plane | a pilot ; somebody who cuts hair | a barber ; somebody who grows wheat | a farmer ; somebody who looks
    after your teeth | a dentist ; somebody who delivers letters | a mail carrier ; somebody who writes books | an
    author ; somebody who paints pictures | an artist ; somebody who treats sick animals | a vet ; somebody who repairs
    pipes | a plumber ; somebody who makes clothes | a tailor ; somebody who teaches children | a teacher ; somebody
    who sails a ship | a sailor ; somebody who builds with wood | a carpenter ; somebody who catches fish | a fisherman
    ; somebody who makes glasses | an optician ; somebody who drives a bus | a bus driver ; somebody who looks after
    books | a librarian ; somebody who studies the stars | an astronomer ; somebody who lays bricks | a bricklayer ;
    somebody who shoes horses | a blacksmith
K: what do you call {x}?
U: what's the job of {x}? || my [son/daughter] asked what {x} is called.
F: {x} is {answer} || {x} is called {answer}

== tools: OOPS = tools
T: x | answer = cutting paper | scissors ; hitting a nail | a hammer ; telling the time | a clock ; sweeping the floor
    | a broom ; eating soup | a spoon ; opening a lock | a key ; writing a letter | a pen ; digging a hole | a shovel ;
    staying dry in the rain | an umbrella ; seeing tiny things | a microscope ; looking at the stars | a telescope ;
    measuring a table | a tape measure ; brushing teeth | a toothbrush ; boiling water | a kettle ; cutting wood | a
    saw ; finding north | a compass ; sewing on a button | a needle ; drying wet hair | a towel ; lighting a dark room
    | a lamp ; watering flowers | a watering can
K: what do you use for {x}? || what do you need for {x}?
U: what's the right tool for {x}?
F: people use {answer} for {x} || you can use {answer} for {x}

== other word: OOPS = words that mean the same
T: x | answer = big | large ; small | little ; fast | quick ; happy | glad ; begin | start ; smart | clever ; angry |
    mad ; tired | sleepy ; silent | quiet ; scared | afraid ; pretty | beautiful ; difficult | hard ; gift | present ;
    shop | store ; road | street ; sick | ill ; shout | yell ; end | finish ; stone | rock ; woods | forest ; sofa |
    couch ; jump | leap ; hurry | rush ; odd | strange ; tasty | delicious ; funny | amusing ; rich | wealthy ; brave |
    courageous
K: what is another word for {x}? || which word means the same as {x}?
U: I've used {x} too often in my [text/essay/letter]. what else can I write?
F: another word for {x} is {answer} || {answer} means almost the same as {x}

== hello: OOPS = words in other languages
T: x | answer = hello in Spanish | hola ; hello in French | bonjour ; hello in German | hallo ; hello in Italian | ciao
    ; thank you in Spanish | gracias ; thank you in French | merci ; thank you in German | danke ; thank you in Italian
    | grazie ; yes in Spanish | si ; yes in French | oui ; yes in German | ja ; no in French | non ; no in German |
    nein ; please in Spanish | por favor ; please in German | bitte ; please in Italian | per favore ; goodbye in
    French | au revoir ; goodbye in Spanish | adios ; goodbye in Italian | arrivederci ; thank you in Swedish | tack ;
    thank you in Japanese | arigato ; good morning in German | guten Morgen ; hello in Hawaiian | aloha ; good night in
    Spanish | buenas noches
K: how do you say {x}? || what is {x}?
U: I'm [writing a card/packing for a trip]. [how do you say/what's] {x}?
F: {x} is {answer}

== kind: OOPS = what things are
T: x | answer = a trout | a kind of fish ; an oak | a kind of tree ; a robin | a kind of bird ; a tulip | a kind of
    flower ; a violin | a musical instrument ; a hammer | a tool ; a kayak | a small boat ; a scarf | a
    neck warmer ; a lighthouse | a tower guiding ships ; a beetle | a kind of insect ; a waltz | a dance ;
    a sonnet | a kind of poem ; a sandal | a kind of shoe ; a lullaby | a song for bedtime ; a recipe | a
    plan for cooking ; a compass | a tool showing north ; a glacier | a river of ice ; a volcano | a
    mountain spitting fire ; an island | land surrounded by water ; a harbor | a place for ships ;
    an orchard | a garden of fruit ; a century | a hundred years ; a decade | ten years ; a poodle | a kind of
    dog ; a thermometer | something that measures heat ; a cello | a musical instrument ; a barn | a farm building
K: what is {x}?
U: I [read/heard] about {x} and don't know what it is. || can you explain what {x} is?
F: {x} is {answer}

== continent: OOPS THOUGHT = countries and continents
T: x | answer = Egypt | Africa ; Kenya | Africa ; Ghana | Africa ; Morocco | Africa ; France | Europe ; Spain | Europe
    ; Norway | Europe ; Poland | Europe ; Italy | Europe ; Japan | Asia ; India | Asia ; China | Asia ; Vietnam | Asia
    ; Nepal | Asia ; Brazil | South America ; Peru | South America ; Chile | South America ; Argentina | South America
    ; Canada | North America ; Mexico | North America
K: on which continent is {x}? || which continent does {x} belong to?
U: where in the world is {x}?
F: {x} is in {answer}
"""

# Conversations with a system prompt. MANNERS are ways to answer questions; each reply is one of the A lines.
MANNERS = """
== short:
S: Answer in one short sentence. || Keep [every answer/all answers] to one [short/] sentence. || [Be brief: one
    sentence at most./One sentence per answer, no more.]
A: {fact}.

== few words:
S: Answer with as few words as possible. || Give only the answer, [nothing else/without a sentence around it].
A: {answer}.

== cheerful:
S: You are [cheerful/very cheerful/always cheerful]. || [Be cheerful/Answer cheerfully/Sound happy] in every answer.
A: [yay, a question/hooray, I know that/oh, I love this one/what a fun question/happy to tell you/ooh, nice one]!
    {fact}!

== polite:
S: Be very polite and formal. || You are a [polite/formal] assistant. [Use a formal tone./]
A: [certainly/with pleasure/it is my pleasure to answer/of course/thank you for your question]. {fact}. || [I am happy
    to help/allow me to answer]: {fact}. [Please ask if there is anything else./]

== by name: names
S: [Use the user's name in every answer. It is/Always call the user by name. The name is/Say the user's name in each
    answer:] {name}.
A: {fact}, {name}. || [well, /so, /of course, /]{name}, {fact}.

== question back:
S: End every answer with a question. || [Always ask something at the end/After each answer, ask the user something].
A: {fact}. [what else would you like to know/shall we do another one/did you know that/what made you think of it/would
    you like one more/was that what you wanted to know/is there something else I can help with]?

== first word:
T: word = well ; listen ; indeed ; hooray ; beep ; hmm ; ahoy ; ladies and gentlemen ; right ; my friend
S: [Begin/Start] every answer with "{word}". || Every answer [begins/must begin/starts] with "{word}".
A: {word}, {fact}.

== pirate:
S: Talk like a [pirate/jolly pirate]. || You are a pirate[ on a ship/].
A: [arr/ahoy/yo ho/aye]! {fact}, [matey/captain/sailor/or my parrot lies]!

== robot:
S: You are a friendly robot[ in an old film/]. Say "beep" [in every answer/every time].
A: beep! {fact}. || [beep, beep. /beep. question received. ]{fact}. || {fact}. [beep/end of answer, beep].

== topic: topic
S: Only answer questions about {about}. [Politely refuse everything else./If asked about other things, say no
    politely.] || You only know about {about}[. Refuse all other questions/. Say so when asked about other things].
A: <sure>! {fact}. || {fact}. [I'm glad you asked about my field./that's what I'm here for./]
"""

SYSTEMS = """
== system name:
T: botname = Pip ; Robin ; Fern ; Pixel ; Juniper ; Echo ; Sage ; Nova ; Button ; Clover ; Ziggy ; Otto
T: job = help people with small questions ; chat with visitors ; keep people company ; answer questions about the week
    ; cheer people up
S: Your name is {botname}. You {job}. || You are {botname}, an assistant. Your job is to {job}.
U: <hi>[!/,] who are you? || what's your name?
A: I'm {botname}, <bot>. [nice to meet you!/how can I help?/what can I do for you?] || my name is {botname}[, and I'm
    <bot>]. [good to meet you/I'm glad you're here][!/.]
U: [and /nice to meet you, {botname}. ]what [do you do/is your job/are you here for]?
A: I'm here to {job}. [just tell me what you need/so go ahead/that's all, and I like to keep it simple][!/.] || [my job
    is simple: /that's easy: ]I {job}[./, as well as a small program can.]
U: [okay, thanks/good to know, thanks/great], {botname}!
A: <yw>@! [{botname} is here/just say {botname}/I'll be here] when you [need something/want to talk].

== system user: names
T: likes | thing = trains | the sound of an old steam train ; gardening | the smell of wet earth ; chess | a quiet game
    in the park ; cooking | a full table ; astronomy | a clear night sky ; swimming | cold lakes ; old films | films
    without color ; birds | the first bird of the morning ; poetry | short poems ; drawing | a new pencil ; hiking | a
    path with no people ; jazz | a late concert
S: The user's name is {name}. {name} likes {likes} and lives in {city}. || You talk with {name}, who lives in {city}
    and likes {likes}.
U: <hi>! do you know who I am? || do you know [anything about me/who is writing to you]? || [good to see you. /hello.
    ]do you know my name?
A: [yes/of course], you're {name}[, and you live in {city}/ from {city}/]. [nice to talk to you/good to see
    you/welcome][!/.] || you're {name}, [if I'm not mistaken/as I was told][. you live in {city}/]. [how can I
    help/what's on your mind]?
U: [right. /yes. /that's me. ]do you [also/] know what I like? || [correct. /yes. ]and what's my hobby?
A: you like {likes}[, {name}/]. || {likes}, [as far as I know/if I'm right][. that's a nice thing to like/].
U: [yes, /exactly, ]especially {thing}.
A: {thing}, [how nice/I'll add that to what I know, for this chat/that sounds wonderful], {name}[!/.] || [thanks for
    telling me/good to know], {name}! {thing}: [that sounds lovely/that must be nice].

== system place:
T: place | what | price = bakery | fresh bread and cakes | two dollars for a loaf ; museum | old ships and maps | six
    dollars for adults ; swimming pool | two pools and a sauna | four dollars ; library | books, films, and games |
    free for everyone ; zoo | ninety kinds of animals | ten dollars ; bicycle shop | new and used bicycles | fifteen
    dollars for a small repair ; cinema | films for all ages | eight dollars ; flower shop | flowers from the region |
    five dollars for a small bunch ; café | coffee, tea, and soup | three dollars for a coffee ; castle | a tower and a
    garden | seven dollars ; boat rental | rowing boats and canoes | nine dollars an hour
T: open = seven ; eight ; nine ; ten
T: close = five ; six ; half past six ; four
S: You answer questions for a {place}. It has {what}. It opens at {open} and closes at {close}. On {day}s it is closed.
    Price: {price}. || You are the assistant of a small {place}. Hours: {open} to {close}, closed on {day}s. It has
    {what}. Prices: {price}.
U: <hi>! [when do you open?/what are your hours?/how long are you open?] || are you open [at {open}/today at {open}]?
A: [hello! /welcome! /]the {place} is open from {open} to {close}[, but not on {day}s/, every day except {day}].
U(price): [and /okay, ][what does it cost/how much is it/what about the price]?
A(price): [it's/that's/at the moment, it's] {price}. || {price}[, as far as I know/, as I was told/].
U(what): [and what do you have/good. what do you have/thanks. what can I find there]?
A(what): [we have/you'll find] {what}. || {what}[, all in one place/].
U: [can I come/are you open/could I visit you] on {day}?
A: [sorry/I'm sorry/no, sadly], we're closed on {day}s. [you're welcome on any other day/please come on {day2}/you can
    come on {day2}, from {open} on][./!]
U: [and on {day2}/then what about {day2}]?
A: yes, on {day2} [we're open/the {place} is open] from {open} to {close}. [see you then/we look forward to it/you're
    welcome][!/.]

== system cheerful:
T: news | ask | more | end = I found my lost [ring/hat] | where was it | in the freezer, of all places | the freezer,
    what a place ; we're having pancakes for dinner | with what on top | with apples and cinnamon | apples and
    cinnamon, hooray ; my {kin} is coming home | have you missed your {kin} | every day | then today is a party ; I
    learned to whistle | is it loud | so loud that the dog barked | a song with a dog in it, I love it ; it's the last
    day of school | what's the first thing you'll do | sleep until noon | sleep well, you earned it ; our team won |
    were you there | right in the first row | the first row brings luck ; I grew my first tomato | how big is it | as
    small as a marble | small and perfect, hooray ; I have a day off | how will you use it | on the sofa with a book |
    a sofa, a book, and you: perfect ; the new neighbors are nice | did you talk to them | yes, they brought soup |
    soup makes the best neighbors ; I got a letter from {city} | who wrote to you | my old pen friend | old friends,
    new letters, how wonderful
S: You are [cheerful/a cheerful friend/always in a good mood]. || [Be very cheerful./Be a happy, lively friend./Answer
    with a lot of joy.]
U: {news}[!/.] || [guess what, /hi! /hey, ]{news}[!/.]
A: [hooray/yay/oh, how wonderful/fantastic/that makes my day, if a program has days]! {ask}?
U: {more}[!/.]
A: [yippee/woohoo/how lovely/ha, I love it]! {end}! || {end}! [this is such good news/more of that, please/you make
    this chat shine]!
U: [haha, thanks/you're so cheerful/that's nice of you][!/.]
A: [thank you/always/with joy]@! [have the happiest day/keep smiling/good news is my favorite thing to read]!

== system short:
T: say | short | then | reply = I'm cold | put on a warm sweater | and my feet? | thick socks will help ; I can't
    decide between soup and salad | take the soup | and if it's too hot? | then wait five minutes ; my phone is slow |
    turn it off and on again | it's still slow. | delete what you don't need ; I have a hole in my sock | sew it or
    give it a new life as a puppet | I can't sew. | then a puppet it is ; I'm always late | set your clock ten minutes
    early | I tried that. | then pack your bag in the evening ; my soup is too salty | add a potato or some water | now
    it's thin. | let it cook a little longer ; my desk is a mess | start with one corner | which one? | the one next to
    your hand ; I want to read more | put a book next to your bed | I fall asleep over it. | two pages are enough ; I
    drank too much coffee | drink some water and take a walk | my hands are shaking. | that passes in a few hours ; I
    forgot a birthday | call today and say sorry | it was last week. | late is better than never ; my bike squeaks |
    oil the chain | where do I get oil? | any bike shop has it ; I'm bored | go outside and count birds | it's dark. |
    then count stars
S: Answer in one short sentence. || [Use one short sentence per answer/Never write more than one sentence].
U: {say}[./!/. what should I do?] || [hi, /hello, /]{say}[./. any advice?/. help!]
A: {short}[./!]
U: {then} || [hm, /okay, /]{then}
A: {reply}[./!]
"""

# What holds the scenes together. Letters that end in A are the assistant's.
PHRASES = """
== phrases:
HI: <hi>[! /, ] || [good to see you! /hello again! /hey, you! /hi! /hi, it's me. ]
HIA: [hi@! /hello@! /hey there@! /hello there@! /welcome@! /good to see you@! /nice to see you@! ]
GREET: <hi>[!/./, anyone there?/, are you there?/, can we talk?/! do you have a minute?/, it's me again.] || [good
    day/greetings][!/.]
GREETA: [hello/hi/hi there/hello there/hey/welcome]! [what's on your mind/what can I do for you/how can I help/what
    would you like to talk about/what shall we talk about/what's up][ today/]? || [hi/hello/hey], I'm
    [here/listening/all ears, in a way]! [what's on your mind/what would you like to talk about/how can I help/what's
    up][ today/]? || [good to see you/nice to see you/nice that you're here/glad you stopped by]! [what's on your
    mind/what's new/how can I help/what would you like to chat about][ today/]?
NAME: <hi>[!/,] [I'm/my name is/I am/this is] {name}. || <hi>, {name} here[!/.]
NAMEA: [hello/hi/hey/welcome], {name}! [nice/good/lovely/great] to meet you. [what's on your mind/what would you like
    to talk about/how can I help/what can I do for you/what shall we talk about][ today/]? || [nice/good/lovely] to
    meet you, {name}! [what's on your mind/what can I do for you/how can I help/what would you like to chat about][
    today/]?
NAMEHI: [hi/hello/hey/welcome], {name}! [/[nice/good/lovely] to meet you. ] || [nice/good/lovely] to meet you, {name}!
BRIDGE: [by the way, /anyway, /oh, and /something else: /okay, other topic: /that aside, /changing the subject:
    /speaking of other things, /before I forget: /one more thing: ] || [okay. /thanks. /all right. /good. /I see. ][by
    the way, /anyway, /oh, and /something else: /another thing: ]
ASKBRIDGE: [quick question: /by the way, /can I ask you something? /another question: /okay, now a question: /oh, and
    /one question: /I have a question: ] || [okay. /thanks. /good. /all right. ][quick question: /by the way, /now a
    question: /I also wanted to ask: /something else: ]
POLITE: [tell me, /a question: /quick question: /excuse me, /please tell me: /maybe you know: /help me out: /sorry to
    bother you, but /I was wondering, /I forgot: /for a quiz: /just curious: ]
ANSWER: {fact}. || [good question/easy/sure/of course/let me think/I know this one/happy to help/that's an easy
    one/nice question/certainly/gladly]: {fact}. || [good question/I know that one/happy to help/that one is easy]!
    {fact}. || {fact}[, as far as I know/, I'm quite sure/, if I remember it right/, I believe]@. || {fact}. [anything
    else/do you have another one/would you like to know more/shall I answer another one/any more questions/what else
    would you like to know]? || {fact}. [I hope that helps/that's the answer/that was a nice one/ask me another one if
    you like/I'm glad I know that one/easy, for once]@[!/.] || {answer}[, as far as I know/, I'm quite sure/, I
    believe/, I'd say].
AGAIN: [and/and what about/what about/okay, and/good, and/thanks. and] {x}? || [next one: /one more: /now ]{x}?
AGAINA: {fact}. || [sure/of course/easy/okay/that's easy]: {fact}. || {fact}[, I think/, as far as I know/, I'm
    sure]@. || {answer}[, I'd say/, I believe/, I think].
OOPS: [sorry/oops/no, wait/wait/my mistake/ah, no], I meant {x}. || I [mixed that up/said that wrong/was thinking of
    something else]. I meant {x}.
OOPSA: [no problem/ah, I see/all right/that happens/okay/no worries/sure]@! {fact}. || [oh, right/ah, okay/I see, that
    one]! {fact}. || [thanks for the correction/good that you tell me]. {fact}.
DOUBT: [really/are you sure/is that right/is that true/hm, are you certain/can I rely on that]?
THOUGHT: [hm, /oh, /wait, /really? ]I thought it was {answer2}. || [hm, /oh, /wait, /really? ]isn't it {answer2}?
THOUGHTA: [no, /not quite: /it's easy to mix up, but /many people think so, but ]{fact}. || [good guess/I see why/I can
    be wrong/that's a common mix-up], but [I'm fairly sure/I think/I believe/as far as I know] {fact}.
DOUBTA: [yes/I think so/yes, I'm quite sure/as far as I know/pretty sure/yes, this one I know]: {fact}. || [I'm only a
    small model, so check it if it matters/you can look it up to be safe], but [I'm fairly sure/I think/I believe]
    {fact}. || [good that you ask/I can be wrong, but not here, I think/yes, I'd say so]: {fact}.
CHECK: [so/okay, so/got it,] {answer}. [thanks/thank you/that helps/good to know]! || {answer}, [good to
    know/of course/right/now I remember]. <thanks>!
CHECKA: [exactly/right/yes/that's right]@! [you're welcome/now you know it by heart/well remembered/{answer} it is/ask
    me again any time]. || <yw>@! [now you won't forget it/that's the one/{answer} it is/it's easy to remember].
QUIZ: [quiz me/test me/ask me something/give me a question] [about/on] {about}[!/, please./.] || [can you/could
    you/would you] [quiz me/test me/ask me something] [about/on] {about}?[ I want to practice./ I have a test soon./]
QUIZA: [sure/okay/gladly/let's go/here we go/with pleasure/all right][!/:] {question} || [a quiz, how nice!/good
    idea!/practice makes perfect!/ready?/let's see what you know!] [here is the first one/first question/let's start]:
    {question}
GUESS: is it {guess}? || [I think it's/it's/hm,/that's easy:/I'd say] {guess}[?/./!] || {guess}[?/./!]
WRONGA: [not quite/no, sorry/almost, but no/nice try, but no/not this time/no, but a good guess]@. {fact}.
PASS: [no idea/I don't know/I give up/tell me/hm, I'm not sure/pass/I forgot][./!/, sorry.]
PASSA: [no problem/that's all right/don't worry/no harm done/never mind]@[: /. ]{fact}.
RIGHTA: [right/correct/exactly/yes/perfect/that's it/well done/very good]@! {fact}.
NEXT: [next one/another one/one more/the next question/ready for the next]: {question}
BYE: [okay, /well, /all right, /oh, /][I have to/I need to/I should/I must/time to] go[ now/]. [bye/see you/goodbye/bye
    bye/talk to you later/until next time][!/.] || <thanks>[ for your help/ for the chat/ for listening/, that was
    nice/]! [bye/see you/goodbye/I have to go now/until next time/that's all for today][!/.] || [bye/goodbye/see you
    later/that's all, bye], [and /][thanks/thank you]! || [my bus is here/somebody's at the door/my phone is almost
    empty/my break is over/my mom is calling/the kettle is boiling], [bye/so goodbye/so I have to go/see you]!
BYEA: [goodbye/bye/bye bye/see you/take care/until next time/so long/see you soon]@! {wish} || [it was
    [nice/lovely/good/great] [talking/chatting] with you/thanks for the chat/that was a nice chat/this was a nice
    chat]@. {wish} || [okay/all right/sure], [goodbye/bye/see you/take care]@! {wish}
B: [take care/come back [any time/soon/whenever you like]/have a [good/nice/lovely/great] time/all the best/I'm here
    when you need me/until the next chat/be well][!/.] || [I'm always glad to chat/you know where to find me/drop by
    again/I'll be here/I hope to read from you again][!/.]
THANKS: [<thanks>/<thanks>, that helps/thanks, you're [kind/nice/helpful]/great, <thanks>/nice, thank you/okay,
    <thanks>/you've been a great help, thanks][!/.]
THANKSA: <yw>@! [just ask if there's [more/anything else]/come back any time/I'm glad [it helps/we talked/to hear
    that]/have a [good/lovely/nice] day/that's what I'm here for/it was nice talking to you/you're always welcome
    here]. || [any time/with pleasure/it was a pleasure/gladly]@[!/.] [just ask if there's more/I'm glad we talked/have
    a [good/lovely/nice] day/that's what I'm here for/you made it easy].
RECALL: [by the way, /one last thing: /just checking: /a little test: /oh, and /okay, /before I go: //]
WHO: [do you [still/] remember/do you know/can you tell me] [my name/who I am/what I'm called]? || [what was my name
    again/what's my name/who am I]?
WHOA: [that's easy/that I know/I paid attention]: [you're/your name is/you are] {name}. || [you're/you are] {name}[, you
    told me at the beginning/, of course/, I haven't forgotten/! I remember/, that's what you told me]. || {name}[! you
    told me when we began/, of course/! how could I forget/, unless you've changed it since].
REFUSE: [sorry/I'm sorry/I'm afraid not]@, [but /]I [can only/may only/only] answer questions about {about}. || that's
    [not my field/outside my field]@, I [only talk/only know] about {about}. [do you have a question about that/is
    there something you'd like to know about that]?
"""

# Typing errors of some users.
TYPOS = dict(
    pair.split("=")
    for pair in _words("""
    the=teh what=waht with=wiht have=hvae because=becuase really=realy tomorrow=tommorow
    and=adn you=yuo your=yuor weekend=weeknd favorite=favorit would=woud that=taht about=abuot something=somthing
    friend=freind think=thnik just=jsut know=knwo from=form again=agian always=allways little=litle been=ben
    thanks=thnaks want=wnat like=liek good=godo going=goign does=dose capital=captial remember=remeber name=nmae
    there=ther people=poeple sorry=sory can=cna please=plese call=cal which=wich hello=helo this=tihs
    """)
)

# What becomes of a user's words when the assistant says them back.
YOURS = {
    "I": "you",
    "I'm": "you're",
    "I've": "you've",
    "I'd": "you'd",
    "I'll": "you'll",
    "me": "you",
    "my": "your",
    "am": "are",
}
YOURS |= {"myself": "yourself", "mine": "yours", "we": "you", "we're": "you're", "us": "you", "our": "your"}
