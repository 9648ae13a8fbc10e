"""The words and sentences of the built-in children's stories (see ``story_generator.py`` for the logic).

Everything here is plain text, so a new plot needs no programming. A plot is one ``Plot(...)`` entry at the end of
this file with

* ``cast``: who takes part, as ``role: kind`` pairs. Kinds are ``child``, ``animal``, ``rooster``, ``parent``,
  ``grand`` and ``elder`` (a parent or grandparent). The first role is always ``hero``.
* ``openers``: first sentences used instead of "Once upon a time, ..." in some of the stories.
* ``tables``: little tables of words that belong together. One row is drawn from each table. The first line names
  the columns, cells are separated by ``|``, and a line that ends in ``|`` goes on in the next line.
* ``text``: the story itself, as blocks separated by blank lines. One line of each block is drawn. A line
  starts with ``*``, and the lines without a star continue it. A block with ``~`` in place of ``*`` may be left out,
  so that stories differ in length and the longest are not too long. ``---`` starts a new paragraph, and ``--?``
  starts one half of the time.

Slots in braces are filled in: ``{hero}`` is the name, ``{he}``, ``{him}``, ``{his}`` and ``{himself}`` the right
pronouns of the hero, ``{child}`` is "girl" or "boy". For another role, say ``pal``, write ``{pal}``, ``{pal_he}``,
``{pal_his}`` and so on. Every table column is a slot: ``{toy}`` is the cell, ``{a_toy}`` puts "a" or "an" in front,
``{Toy}`` has a capital letter. ``{color}`` and ``{one_day}`` can be used everywhere. Never write "he" or "her" as
plain words: the slots keep the pronouns right.
"""

from __future__ import annotations

from typing import NamedTuple


class Plot(NamedTuple):
    """One plot, written as plain text (the format is described at the top of this module)."""

    name: str
    cast: str
    text: str
    tables: tuple[str, ...] = ()
    openers: str = ""


def _words(text: str) -> tuple[str, ...]:
    """Returns the words of a line."""
    return tuple(text.split())


# Every name is one token of GPT-2's vocabulary, after a space as well as at the beginning of a paragraph: a small model
# learns to carry on a name it has read long before it learns to spell it twice.
GIRLS = _words("Anna Kate Alice")
BOYS = _words("Tom Ben Sam")
ANIMAL_GIRLS = _words("Berry Bell Rose")
ANIMAL_BOYS = _words("Chip Max Rex")

COLORS = _words("red blue yellow green purple orange pink")
TRAITS = _words("kind cheerful curious gentle clever happy")
HOMES = (
    "a small house with a red door",
    "a little white house",
    "a quiet village",
    "a small town near the sea",
    "a cozy house at the end of a lane",
    "a house beside an old apple tree",
    "a tiny house with a big garden",
)
DAYS = ("One day", "One morning", "One sunny morning", "One fine day", "One bright morning")

# Openings by the kind of hero. About 60 % of the stories begin with one of the ONCE lines.
ONCE = {
    "child": """
        * Once upon a time, there was a little {child} named {hero}.
        * Once upon a time, there was a {trait} little {child} named {hero}.
        * Once upon a time, a {child} named {hero} lived in {home}.
        * Once upon a time, in {home}, there lived a little {child} named {hero}.
        * Once upon a time, there was a little {child} called {hero} who lived in {home}.
        """,
    "animal": """
        * Once upon a time, there was a little {species} named {hero}.
        * Once upon a time, a {trait} little {species} named {hero} lived {den}.
        * Once upon a time, {den}, there lived a little {species} named {hero}.
        * Once upon a time, there was a {trait} {species} called {hero} who lived {den}.
        """,
}
OTHER = {
    "child": """
        * There was once a little {child} named {hero} who lived in {home}.
        * There was once a {trait} {child} named {hero}.
        * In {home}, there lived a little {child} named {hero}.
        """,
    "animal": """
        * There was once a little {species} named {hero} who lived {den}.
        * There was once a {trait} {species} named {hero}.
        * Not so long ago, a little {species} named {hero} lived {den}.
        """,
}

LOST_TOY = Plot(
    name="lost toy",
    cast="hero: child, pal: child",
    openers="""
        * One sunny morning, a little {child} named {hero} woke up and knew that something was wrong.
        * One rainy morning, a {child} named {hero} sat up in bed and looked around.
        """,
    tables=(
        """
        toy | mark
        teddy bear | one torn ear
        cloth rabbit | long soft ears
        woolly lamb | a blue ribbon
        toy elephant | a long gray trunk
        rag doll | yellow hair
        """,
        "toy_name \n Button \n Biscuit \n Muffin \n Pudding \n Noodle \n Peanut",
        """
        last | where | wrong | spot
        I took {toy_name} with me when I fed the ducks | the duck pond | in the reeds | on the bench beside the water
        I took {toy_name} with me when I picked berries | the berry bushes | between the leaves |
            in the shade under the last bush
        I had {toy_name} when I sat on the swing | the old swing | behind the tree | in the long grass by the fence
        I had {toy_name} when I helped to hang up the washing | the clothesline | behind the wet sheets |
            in the basket under a pile of socks
        I took {toy_name} with me when I visited the hens | the hen house | behind the door |
            in a warm nest, next to a sleepy hen
        I had {toy_name} when I jumped in the hay | the barn | behind the wagon | deep in the soft hay
        """,
    ),
    text="""
        * {hero} had {a_toy} named {toy_name}, and {he} took it everywhere. It even sat beside {his} plate at dinner.
        * {hero}'s best toy was {a_toy} with {mark}. Its name was {toy_name}, and {he} could not sleep without it.
        * Of all {his} toys, {hero} loved {toy_name} most. {toy_name} was {a_toy} with {mark}.

        * {one_day}, {hero} reached for {toy_name}, but the {toy} was not there. {He} looked under the pillow. {He}
          looked behind the door. {He} could not find it anywhere.
        * {one_day}, {toy_name} was gone. {hero} looked in the toy box, under the table, and even inside {his} boots,
          but {he} found only dust.
        * {one_day}, {hero} could not find {toy_name}. {He} turned the whole room upside down, and still there was no
          {toy}.

        ~ {hero} sat down on the front step and began to cry.
        ~ A big tear rolled down {his} cheek.
        ~ "What if {toy_name} is cold and all alone?" {he} thought, and {his} lip began to shake.

        ---

        * {pal} from next door came by. "Why are you so sad?" asked {pal}. "I lost {toy_name}," said {hero}. "I looked
          in every corner."
        * {His} friend {pal} came to play and saw {his} wet eyes. "What happened?" asked {pal}. So {hero} told
          {pal_him} everything.
        * Just then {his} friend {pal} looked over the gate. "{toy_name} is lost," said {hero}, "and I don't know
          where to look anymore."

        * "Let's think first," said {pal}. "Where were you when you last had {toy_name}?" {hero} shut {his} eyes and
          thought hard. "{last}," {he} said at last.
        * "We can't look everywhere," said {pal}, "but we can look in the right place. What did you do yesterday?"
          {hero} rubbed {his} eyes. "{last}," {he} said slowly.
        * "Don't cry," said {pal}. "Try to remember. When did you see {toy_name} last?" {hero} thought and thought.
          "Oh!" {he} said. "{last}."

        --?

        * So they ran to {where}. First they looked {wrong} and found nothing.
        * Hand in hand, they went to {where}. They looked {wrong} and saw only a beetle.
        * The two friends hurried to {where}. First they looked {wrong}, and nothing was there.

        * "There!" cried {pal}. It was {toy_name}, {spot}.
        * Then {hero} gave a happy shout. There, {spot}, was {toy_name}!
        * But then, {spot}, they saw the lost {toy}. "{toy_name}!" cried {hero}.

        ~ {hero} hugged {toy_name} tightly, and then {he} hugged {pal} too. "You are good at thinking," {he} said.
        ~ {hero} brushed off the dust and held {toy_name} close. "Thank you, {pal}," {he} said. "You asked just the
          right question."
        ~ {hero} danced in a circle with {toy_name} in {his} arms, and {pal} clapped and laughed.

        * That night, {toy_name} was back in the warm bed, and {hero} fell asleep with a smile.
        * From then on, when something was lost, {hero} did not cry. {He} stopped, {he} thought, and then {he} went
          back to look.
        * On the way home, they took turns carrying {toy_name}, and that was the best part of the day.
        """,
)

KITE = Plot(
    name="kite in a tree",
    cast="hero: child, beast: animal",
    openers="""
        * One windy morning, a {child} named {hero} jumped out of bed and ran to the window.
        * One windy morning, a little {child} named {hero} could hardly wait to go outside.
        """,
    tables=(
        """
        helper | food | offer | how
        robin | some bread | I have wings |
            flew up to the branch and pulled at the string with {beast_his} little beak until the knot came loose
        squirrel | a nut | I can climb any tree |
            ran up the trunk, jumped from branch to branch, and bit right through the knot
        crow | a piece of cheese | I can fly higher than that tree |
            flew to the very top and lifted the string over the twigs, one by one
        cat | the last bit of fish | I am good at climbing |
            climbed up, paw after paw, and tapped the string until it slipped off the branch
        """,
    ),
    text="""
        * {hero} had {a_color} kite with a long tail, and {he} wanted to see it touch the clouds.
        * {He} had made a kite out of {color} paper, and {he} wished to fly it as high as the birds.
        * For {his} birthday, {hero} got a big {color} kite. More than anything, {he} wanted to make it fly.

        * {one_day}, the wind was just right, so {he} took the kite to the hill. On the path sat a hungry {helper}.
          {hero} had only a small lunch, but {he} gave the {helper} {food}.
        * {one_day}, the wind was strong, and {hero} went out with the kite. By the gate {he} met {a_helper}. "I have
          not eaten all day," said the {helper}. So {hero} shared {his} lunch and gave {beast_him} {food}.
        * {one_day}, while the trees danced in the wind, {hero} set out for the hill. "Do you have something to eat?"
          asked {a_helper} on the fence. "Here, take {food}," said {hero}, and the {helper} ate it all up.

        --?

        * On top of the hill, {hero} ran as fast as {he} could. Up, up, up went the kite!
        * Then {hero} held the string and ran. The kite jumped into the air and danced over the fields.
        * The kite shook its tail and rose into the sky. {hero} laughed out loud.

        * But the wind gave a big push, and the kite flew into a tall tree. {hero} pulled the string. {He} jumped and
          jumped. The kite was stuck.
        * Then the wind turned around. Down came the kite, right into the top of an old tree. {hero} tried to climb
          up, but even the lowest branch was too high.
        * All at once the wind blew harder, and the string got caught in a tree. {hero} pulled to the left and to the
          right, but the kite did not move.

        ~ "Oh no," {he} said. "I will never get it back."
        ~ {He} sat down in the grass and put {his} chin in {his} hands.
        ~ "Please come down," {he} called, but kites do not listen.

        ---

        * "Don't be sad," said a voice. It was the {helper}! "You were kind to me, so now I will help you. {offer}."
        * Then {he} heard a small voice behind {him}. It was the {helper} {he} had fed. "{offer}," said the {helper}.
          "Let me try."
        * But somebody had been watching. "You gave me food," said the {helper}. "{offer}. Just wait here."

        * The {helper} {how}.
        * At once, the {helper} {how}.
        * {hero} held {his} breath while the {helper} {how}.

        * The kite floated down like a leaf, and {hero} caught it with both arms. "Thank you!" {he} cried.
        * Down came the kite, with only one small hole in its tail. {hero} jumped for joy.
        * "Catch!" called the {helper}, and the kite landed softly at {hero}'s feet.

        * That evening {hero} told everyone that a kind deed is never too small.
        * After that, {hero} always brought a bigger lunch to the hill, because now there were two friends to eat it.
        * From that day on, whenever {hero} flew the kite, the {helper} sat beside {him} and watched.
        * {hero} had shared {his} lunch, and {he} had found a friend.
        """,
)

LEARN = Plot(
    name="learning something hard",
    cast="hero: child, adult: elder",
    openers="""
        * One warm morning, a little {child} named {hero} made a plan.
        * One Saturday morning, a {child} named {hero} ate {his} breakfast very fast.
        """,
    tables=(
        """
        skill | place | fail | tip | done | win
        ride a bike | the path behind the house | the bike shook, and {he} fell onto the grass |
            Look ahead and not at your feet | looked ahead at the big tree and pushed the pedals around and around |
            {he} rode all the way to the tree
        swim | the lake | {he} splashed and kicked, and water went up {his} nose |
            Stay calm and kick slowly | lay on the water like a leaf and kicked slowly |
            {he} swam right into {adult}'s arms
        roller-skate | the smooth yard behind the school | {his} feet rolled away, and {he} sat down with a bump |
            Bend your knees and walk like a penguin | bent {his} knees and took tiny steps |
            {he} rolled from one side of the yard to the other
        jump rope | the yard | the rope hit {his} toes and stopped |
            Listen to the rope and jump when it taps the ground |
            listened to the rope and jumped each time it tapped the ground | {he} jumped ten times in a row
        whistle | the garden bench | only air came out, with no sound at all |
            Make your lips round and blow as if your soup is too hot |
            made {his} lips round and blew as softly as {he} could |
            a clear little whistle flew over the garden
        """,
    ),
    text="""
        * {hero} wanted to learn to {skill}. All the big children could do it, and they made it look easy.
        * More than anything, {hero} wished {he} could {skill} like the older children.
        * There was one thing {hero} could not do yet. {He} could not {skill}, and {he} wanted to very much.

        * {one_day}, {he} went to {place} with {adult}. {hero} tried once, but {fail}.
        * {one_day}, {adult} took {him} to {place}. "I am ready!" said {hero}. But the first time, {fail}.
        * {one_day}, {hero} said, "Today I will do it!" {He} went with {adult} to {place} and tried, but {fail}.

        ~ {He} tried again, and it was no better.
        ~ The second time was just the same. So was the third.
        ~ "Again!" {he} said. But the next try went just as badly.

        * "I give up," said {hero}, and {his} eyes were wet. "I will never be able to {skill}."
        * {hero} turned red. "It is too hard for me," {he} said. "I want to go home."
        * "I can't!" cried {hero}. "Everybody can {skill} except me."

        ---

        * {adult} sat down next to {him}. "Do you know how many times I tried when I was small?" {adult_he} asked. "I
          tried for a whole summer." {hero} looked up. "Really?"
        * {adult} did not laugh. "You can't do it yet," said {adult}. "Yet is a very important word."
        * "When you were a baby, you could not walk," said {adult}. "You fell down a hundred times, and you always got
          up again. Look at you now!"
        * {adult} gave {him} a drink of water. "Everyone finds it hard at first," {adult_he} said. "I did too."

        * Then {adult} told {him} a secret. "{tip}," {adult_he} said.
        * Then {adult} showed {him} a trick. "{tip}," said {adult}.
        * {adult} bent down to {his} ear. "{tip}," {adult_he} said softly.

        --?

        * {hero} took a deep breath. This time {he} {done}. And then {win}!
        * So {hero} got up once more. {He} {done}, and all at once {win}!
        * {hero} nodded and tried one more time. {He} {done}. It worked a little. {He} did it again, and {win}!

        ~ "I did it!" {he} shouted. "Did you see me?"
        ~ "You did it!" cried {adult}, clapping {adult_his} hands.
        ~ {adult} cheered so loudly that a bird flew out of a tree.

        * {hero} did it again and again until the sun went down. {He} was tired, but {he} was very proud.
        * At dinner {hero} told the story three times, and each time it got better.
        * The next day {hero} met a smaller child who was close to tears. "I could not do it either," said {hero}
          kindly, "and now I can."
        * After that, {hero} was not afraid of hard things. {He} knew that most things are hard before they are easy.
        """,
)

SHARE = Plot(
    name="the last piece",
    cast="hero: child, pal: child, adult: elder",
    openers="""
        * One cold morning, a {child} named {hero} smelled something sweet in the kitchen.
        * One Sunday morning, the house of a {child} named {hero} smelled like sugar and warm butter.
        """,
    tables=(
        """
        treat | treats | half
        piece of apple cake | an apple cake | half of the cake
        piece of cherry pie | a cherry pie | half of the pie
        honey bun | a plate of honey buns | half of the bun
        chocolate cookie | a plate of chocolate cookies | half of the cookie
        slice of plum tart | a plum tart | half of the tart
        """,
        "tie \n friend \n neighbor",
    ),
    text="""
        * {adult} had baked {treats}, and {hero}'s {tie} {pal} came over for a taste.
        * {hero} loved the days when {adult} was baking. {one_day}, {adult} made {treats}, and {hero}'s {tie} {pal}
          came to visit.
        * {one_day}, {hero} and {his} {tie} {pal} helped {adult} in the kitchen. They made {treats}.

        * Everyone ate and ate. Soon there was only one {treat} left on the plate.
        * It was so good that nobody spoke for a long time. Then {hero} saw that one last {treat} was left.
        * They ate until only one {treat} was left. It sat in the middle of the plate and smelled wonderful.

        * "It is mine," said {hero}. "No, it is mine," said {pal}. "I saw it first!"
        * {hero} and {pal} reached for it at the same time. "I want it!" they both shouted.
        * "I am still hungry," said {hero}. "I am hungrier than you," said {pal}. They both pulled at the plate.

        ~ The plate tipped, and the {treat} almost fell on the floor.
        ~ {hero}'s face got hot. {pal} stamped {pal_his} foot. The kitchen was not a happy place anymore.
        ~ They looked at each other with angry eyes, and neither one let go.

        ---

        * {adult} put the plate high up on the shelf. "Here is a rule," said {adult}. "One of you cuts, and the other
          one chooses."
        * "Stop," said {adult}. "I know a fair way to share. One of you cuts it in two, and the other one picks
          first."
        * {adult} did not shout. {Adult_he} only put a small knife on the table. "{hero} will cut," said {adult}, "and
          {pal} will choose."

        * {hero} thought about it. If one part was big and one part was small, {pal} would take the big one! So {he}
          cut very slowly, right down the middle.
        * {hero} took the knife. {He} looked from the left, and {he} looked from the right. Then {he} cut the {treat}
          into two parts that were just the same.
        * "Then I must be careful," thought {hero}. {He} measured with {his} finger and cut the {treat} exactly in
          half.

        * {pal} looked and looked. "They are both the same!" {pal_he} said, and {pal_he} began to giggle. Soon {hero}
          was laughing too.
        * {pal} could not see which one was bigger. "You cut well," said {pal}. "You choose well," said {hero}.
        * {pal} took one half, and {hero} took the other. Neither one was bigger, and nobody was angry.

        --?

        ~ Then {hero} saw that {adult} had not eaten anything. "Wait," {he} said. {He} broke a bit off {his} half, and
          {pal} broke a bit off the other one. Now there was some for three.
        ~ "You made it, but you had none," {hero} said to {adult}. So the two friends each gave {adult_him} a bite.
        ~ A little bird tapped on the window. {hero} laughed and put {his} last crumbs outside for it.

        * And do you know what? Sharing made it taste even sweeter.
        * It was only {half}, but {hero} thought it was the best part of the day.
        * After that, {hero} and {pal} never fought over the last bite. One cut, and the other one chose.
        * "Half is not so small," said {hero}, "when you eat it with a friend."
        """,
)

STORM = Plot(
    name="the storm",
    cast="hero: child, pet: animal",
    openers="""
        * Long ago, in a village by the sea, there lived a {child} named {hero}.
        """,
    tables=(
        "animal | noise \n puppy | whined \n kitten | mewed \n spotted puppy | whined \n gray kitten | mewed",
        """
        spot
        under the bed
        behind the big chair
        under the table
        in the corner behind the curtain
        """,
        """
        idea | act | calm
        We need a safe place | took two chairs and a blanket and made a tent |
            Inside the tent it was warm and quiet, and the thunder seemed far away
        Let's sing louder than the thunder | began to sing the silliest song {he} knew |
            Each time the thunder boomed, {he} sang a little louder
        Let's count until the thunder comes | waited for a flash and counted slowly, one, two, three |
            Each time {he} could count a little more, and so they knew the storm was going away
        I will tell you a story | sat down on the floor and told a story about a cloud that had lost its shoes |
            It was such a funny story that they almost forgot to listen to the rain
        """,
    ),
    text="""
        * {He} had {a_animal} named {pet}, and the two of them did everything together.
        * {hero}'s best friend was {a_animal} named {pet}. {pet} was not afraid of anything, or so it seemed.
        * {hero} had {a_animal} named {pet}, who slept at the end of {his} bed every night.

        * One evening, dark clouds came over the hills. The wind pushed at the windows, and the rain began to fall.
        * One night, the sky turned black. First came a few drops, and then the rain drummed on the roof.
        * One summer night, {hero} woke up. Rain was beating on the glass, and the whole sky was rumbling.

        * Boom! went the thunder. {pet} {noise} and hid {spot}.
        * Then there was a bright flash and a great big boom. {pet} ran and hid {spot}.
        * Boom, boom! The house shook. When {hero} looked around, {pet} was gone. {Pet_he} was hiding {spot}.

        ---

        * {hero}'s own heart was beating fast. {He} wanted to hide too. But {pet} needed {him}.
        * {hero} did not like thunder either. {He} wanted to pull the blanket over {his} head. Then {he} saw {pet}
          shaking, and {he} knew what to do.
        * {hero} was scared as well. "But I am the bigger one," {he} thought, "so I must be brave for two."

        * {He} crawled over to {pet}. "I am here," {he} said softly. "{idea}."
        * {He} held out {his} hand. "Poor {pet}," {he} said. "{idea}."
        * {He} lay down on the floor, nose to nose with {pet}. "Don't worry," {he} said. "{idea}."

        * So {hero} {act}. {calm}.
        * Then {he} {act}, with {pet} close beside {him}. {calm}.
        * {pet} came out, one paw at a time. {hero} {act}. {calm}.

        --?

        ~ Little by little, {pet} stopped shaking. {Pet_he} put {pet_his} head on {hero}'s knee and closed {pet_his}
          eyes.
        ~ Soon {pet} was not shaking anymore. {Pet_he} licked {hero}'s hand and curled up like a ball.
        ~ {pet} looked at {him} with big round eyes, and then {pet_he} even wagged {pet_his} tail.

        ~ And {hero} noticed something strange. While {he} was taking care of {pet}, {his} own fear had gone away.
        ~ "That is funny," thought {hero}. "I forgot to be afraid."
        ~ The storm grumbled one last time and moved on over the hills. {hero} had not even noticed.

        --?

        * In the morning, the sun was shining, and a rainbow stood over the garden. {hero} and {pet} ran out to jump
          in the puddles.
        * When the sun came up, {hero} and {pet} were still asleep, side by side, and the whole world was clean and
          wet.
        * The next day, every leaf was shining. "Next time it storms," {hero} told {pet}, "we will know what to do."
        * After that night, they were never quite so scared of storms, because they had each other.
        """,
)

TOO_SMALL = Plot(
    name="too small and just right",
    cast="hero: animal, beast: animal",
    openers="""
        * One autumn morning, a little {species} named {hero} heard a lot of noise outside.
        * Long ago, when animals could talk, there was a little {species} named {hero}.
        """,
    tables=(
        """
        species | den
        mouse | under the roots of an oak tree
        frog | beside a green pond
        lizard | between two warm stones
        chipmunk | in a cozy little hole
        """,
        """
        job | try
        carry the heavy pumpkins to the barn |
            pushed a pumpkin with all {his} strength, but it did not roll even an inch
        move stones for the new wall | pulled at a stone until {his} legs shook, but the stone stayed where it was
        bring logs for the big fire | pulled at a log until {his} face was red, but the log did not move
        carry baskets of apples up the hill | tried to lift a basket, but {he} could not even reach the handle
        """,
        "big \n bear \n horse \n moose",
        """
        trouble | hole | return
        The silver bell for the feast had rolled into a hollow log | the log | came out with the bell
        The only key to the barn had fallen into a crack in the floor | the crack | came out with the key in {his} mouth
        A baby duck had slipped into a narrow hole under a tree | the hole |
            came out with the baby duck right behind {him}
        The cook's best spoon had dropped between two big rocks | the gap | came out with the spoon
        """,
    ),
    text="""
        * All the animals were getting ready for winter, and {hero} wanted to help.
        * {hero} wished to be big and strong, because big animals could do important things.
        * It was harvest time. {hero} wanted to be useful, just like everyone else.

        * {one_day}, the animals met to {job}. {hero} {try}.
        * {one_day}, everyone came together to {job}. "I will help too!" said {hero}. {He} {try}.
        * {one_day}, the {big} called all the animals to {job}. {hero} ran to the front of the line. {He} {try}.

        * "You are too small," said the {big}. "Go and play, little one."
        * The {big} smiled. "Be careful down there," said the {big}. "I almost stepped on you. This is work for big
          animals."
        * "Please step aside," said the {big}, and {beast_he} was not unkind about it. "You are just too small for
          this."

        ~ {hero} went away with {his} head down. "I am no good for anything," {he} said.
        ~ {hero} sat behind a leaf and felt smaller than ever.
        ~ "Why can't I be big?" thought {hero}, and {he} wiped away a tear.

        ---

        * Then there was a loud cry. {trouble}! The {big} tried to reach it, but {beast_his} foot was much too wide.
        * In the afternoon, everybody stopped working. {trouble}! The {big} reached in as far as {beast_he} could, but
          it was no use.
        * Soon something bad happened. {trouble}! The {big} pushed and puffed. "I am too big," said the {big} sadly.

        ~ The animals stood around and did not know what to do.
        ~ They asked who could fit in there. Everybody was quiet.
        ~ One after another they tried, and one after another they gave up.

        * "I can," said a small voice. It was {hero}. {He} pulled in {his} tummy and slipped into {hole}.
        * {hero} came closer. "Let me try," {he} said. "I am small." And {he} crawled into {hole}.
        * Then {hero} looked at {hole}. It was narrow and dark, but it was just {his} size. In {he} went!

        * It was dark inside, but {he} was not afraid. Soon {he} {return}.
        * For a moment nothing happened. Then {he} {return}. "Hooray!" shouted all the animals.
        * Everyone waited. One, two, three, four. Then {hero} {return}!

        --?

        * The {big} bowed {beast_his} big head. "I was wrong," said the {big}. "You were not too small. You were just
          right."
        * "I am sorry," said the {big}. "Today the smallest one did the biggest job."
        * "What would we do without you?" said the {big}, and {beast_he} lifted {hero} up so that everyone could see.

        * That evening at the feast, {hero} sat in the best seat of all, right on top of the {big}'s head.
        * From then on, no one ever told {hero} to go and play when there was work to do.
        * {hero} never wished to be big again. There was enough to do for someone small.
        * Big or small, everybody is just right for something.
        """,
)

SEED = Plot(
    name="the seed",
    cast="hero: child, adult: elder",
    openers="""
        * One spring morning, a little {child} named {hero} went out into the garden with {adult}.
        * Long ago, in a village by the sea, there lived a {child} who could not wait. The {child}'s name was {hero}.
        """,
    tables=(
        """
        seed | size | grown | gift
        sunflower seed | small and striped | a sunflower stood there, taller than {hero}, with a face like the sun |
            Its middle was full of new seeds
        pumpkin seed | flat and white | a pumpkin lay there, as round and orange as the moon in autumn |
            Inside it there were so many new seeds that nobody could count them
        bean | smooth and brown | a green vine reached up to the window, and it was full of beans |
            Each pod held five new beans
        melon seed | thin and dark | a big green melon lay there, as heavy as a cat |
            Inside it was red and sweet and full of new seeds
        """,
        """
        cover
        in the garden, next to the fence
        behind the house, where the sun was warm
        under {his} window
        beside the kitchen door
        """,
    ),
    text="""
        * {one_day}, {he} found a single {seed}. It was {size}. "What is in there?" {he} asked {adult}.
        * {one_day}, {adult} gave {him} {a_seed}. It was {size}. "There is a big plant asleep in here," said {adult}.
        * {hero} wanted to grow something all by {himself}. So {adult} put {a_seed} into {his} hand. It was {size}.

        * {hero} dug a hole {cover}. {He} put the seed in and covered it with soft earth. "Good night, seed," {he}
          said.
        * They planted it {cover}. {hero} patted down the earth and gave it some water.
        * {hero} found a good place {cover}. {He} made a hole with {his} thumb, dropped in the seed, and watered it.

        --?

        * The next day, {he} ran out to look. There was nothing but dirt. The day after that, there was still nothing.
        * {He} sat down to watch it grow. {He} watched until lunch. Nothing happened.
        * "Grow!" said {hero}. But the seed did not grow that day, or the next day, or the day after.

        * "It is broken," {he} said. "I will dig it up and see." But {adult} took {his} hand. "Wait," said {adult}.
          "The seed is busy. It works in the dark, where we can't see it."
        * After a week, {hero} was cross. "It does not like me," {he} said. {adult} shook {adult_his} head. "It likes
          water and sun and time," said {adult}. "You can give it water. The sun will come. And time takes time."
        * {hero} took {his} little spade to dig up the seed. "Stop!" called {adult}. "If you wake it too early, it
          will never grow. Can you be patient?" {hero} sighed. "I will try," {he} said.

        ---

        * So {hero} waited. {He} watered the spot every morning, and {he} pulled out the weeds. When it was dry, {he}
          brought more water. When it rained, {he} stayed inside and smiled.
        * Waiting was hard. Each morning {hero} brought a cup of water, and each morning {he} sang a small song to the
          ground.
        * {hero} waited, and while {he} waited, {he} worked. {He} gave the seed water and kept the hungry snails away.

        * Then one morning, {hero} saw something green. It was as small as a fingernail. "Come and look!" {he}
          shouted. "It is awake!"
        * And then, one day, the earth had a crack in it. A tiny green leaf was looking out. {hero} was so happy that
          {he} danced around it.
        * At last two little leaves came up, as bright as paint. {hero} did not touch them. {He} only said, "Hello."

        * The plant grew and grew. At the end of summer, {grown}.
        * Week after week, it got bigger. By the time the evenings were cool, {grown}.
        * All through the warm months it drank and grew, and then {grown}!

        --?

        ~ {gift}. "Now I can plant a whole garden," said {hero}.
        ~ {gift}. {hero} gave some of them to every child on the street.
        ~ {gift}. "Look what one seed can do," said {adult}.

        * "It was not broken," said {hero}. "It only needed time."
        * Since then, {hero} has been very good at waiting.
        * And {hero} was the proudest gardener in the world.
        * {hero} had learned that good things grow slowly.
        """,
)

BROKEN = Plot(
    name="telling the truth",
    cast="hero: child, adult: elder",
    openers="""
        * One rainy morning, a {child} named {hero} had to play inside.
        * One rainy morning, a little {child} named {hero} did not know what to play.
        """,
    tables=(
        """
        thing | from | new
        blue cup | It had come from across the sea | cup became a home for three pencils
        flower vase | It was as thin as a shell | vase became a home for dry grass and feathers
        little teapot | It had roses on its side | teapot stood in the garden, and a small red flower grew in it
        china bird | It had painted wings |
            china bird sat on the shelf again, with a line down its back like a lucky mark
        yellow bowl | It was older than the house | bowl stood by the window, full of shiny stones
        """,
        """
        cause
        {hero} threw {his} ball in the living room, though {he} knew it was not allowed. The ball bounced off the wall
        {hero} was running around the table as fast as a horse. {His} elbow hit the shelf
        {hero} climbed on a chair to get a cookie. The chair shook, and {he} grabbed the shelf
        {hero} was playing that a broom was a sword. It swung around
        """,
        """
        hide
        under the sofa
        behind the curtain
        at the bottom of the toy box
        in an old boot
        """,
    ),
    text="""
        * On the shelf stood {adult}'s {thing}. {from}, and {adult} loved it very much.
        * {adult} had {a_thing} that nobody was allowed to touch. {from}.
        * There was a shelf in the house with {a_thing} on it. {from}, and it belonged to {adult}.

        * Then it happened. {cause}. Crash! The {thing} lay on the floor in three pieces.
        * Nobody was looking. {cause}. There was a loud crash. The {thing} was broken.
        * {adult} was busy upstairs. {cause}. Down fell the {thing}, and it broke.

        * {hero} stood very still. Then {he} picked up the pieces and hid them {hide}.
        * "Oh no," said {hero} in a tiny voice. {He} looked left and right, and then {he} hid the pieces {hide}.
        * {hero}'s cheeks went hot. {He} put the pieces {hide}, where no one would see them.

        ---

        ~ At dinner {he} could not eat. {His} tummy felt as if it were full of stones.
        ~ All day long {he} felt bad. {He} did not want to play, and {he} did not want to draw.
        ~ {He} tried to read a book, but {he} could only think about those three pieces.

        ~ "Have you seen my {thing}?" asked {adult}. "Maybe the cat took it," said {hero}. The cat looked at {him}.
          Now {he} felt even worse.
        ~ {adult} looked at the empty place on the shelf and said nothing. That was worse than shouting.
        ~ "Are you sick?" asked {adult}, and {adult_he} felt {hero}'s head. {adult} was so kind that {hero} wanted to
          cry.

        * At last {hero} could not keep it inside any longer. "I broke it," {he} said. "It was me, and I hid it. I am
          so sorry."
        * At bedtime, {hero} took a big breath. "I have to tell you something," {he} said. {He} got the pieces and put
          them in {adult}'s lap.
        * Then {hero} started to cry. "I broke your {thing}," {he} said. "I was scared to tell you."

        ---

        * {adult} was quiet for a moment. "I am sad about the {thing}," said {adult}, "but I am glad you told me the
          truth. That was brave."
        * {adult} pulled {him} close. "Things can break," {adult_he} said, "but I would not want our trust to break.
          Thank you for telling me."
        * "That was hard to say," said {adult}. "It was much harder than hiding it. I am proud of you for that."

        * The next day they sat at the table with a pot of glue. {hero} held the pieces while {adult} stuck them
          together. Soon the {new}.
        * Then they took glue and a small brush and worked for a long time. When they were done, the {new}.
        * They put it together again with a lot of glue. It was not as pretty as before, but the {new}.

        * And {hero}'s tummy felt as light as a feather.
        * {hero} was more careful after that, and {he} always told the truth.
        * Each time {hero} walked past it, {he} remembered that the truth makes you feel better.
        * That night {hero} slept well, because there was nothing left to hide.
        """,
)

NEW_CHILD = Plot(
    name="a new friend",
    cast="hero: child, pal: child",
    openers="""
        * One Monday morning, a {child} named {hero} walked to school in {his} yellow boots.
        * One autumn morning, a little {child} named {hero} skipped all the way to school.
        """,
    tables=(
        """
        from
        from a city far away
        from the other side of the mountains
        from an island in the sea
        from a land where it never snowed
        """,
        """
        like | see | share | game
        drawing | was drawing a horse in the sand with a stick | drew a small fence around the horse |
            Soon there was a whole farm in the sand
        snails | was looking at a snail on the wall | held out a fresh leaf for the snail |
            Soon they had built a little house out of leaves
        towers | was putting small stones on top of each other | found a flat stone and put it on the top |
            Soon the tower was as high as their knees
        paper boats | was folding a boat out of paper | put a leaf on the boat for a sail |
            Soon a whole row of boats was sailing across the puddle
        marbles | was rolling a green marble along a crack in the ground | rolled a blue marble next to the green one |
            Soon they were rolling marbles down the slide and laughing
        """,
    ),
    text="""
        * {one_day}, a new {pal_child} came to {his} class. The {pal_child}'s name was {pal}, and {pal_he} had come
          {from}.
        * There was a new {pal_child} at {his} school. {pal} came {from} and did not know anyone.
        * {hero} had many friends. But {pal}, who was new at {his} school, had none. {pal} had come {from}.

        * At playtime the other children ran and shouted, but {pal} stood alone by the wall.
        * The children played tag. {pal} only watched, with {pal_his} hands deep in {pal_his} pockets.
        * Nobody was mean to {pal}. Nobody talked to {pal_him} either.

        * "Hello," said {hero}. {pal} looked at {pal_his} shoes and did not answer.
        * "Do you want to play tag?" asked {hero}. {pal} shook {pal_his} head and went away.
        * {hero} smiled and waved, but {pal} turned around quickly.

        ~ "I don't think {pal} likes me," {hero} said at home. "Maybe {pal} is only shy," said Mom. "Some doors open
          slowly."
        ~ {hero} wanted to be friends, but {he} did not know how.
        ~ "Leave {pal_him} alone," said the others. But {hero} remembered {his} own first day, and how big the school
          had seemed.

        ---

        * The next day, {hero} did not call or wave. {He} just watched. {pal} {see}.
        * On Tuesday, {hero} saw something. Over in a quiet corner, {pal} {see}.
        * A few days later, {hero} came out early. {pal} was already there. {Pal_he} {see}.

        * "So {pal} likes {like}," thought {hero}. {He} sat down, not too close, and {share}.
        * {hero} liked {like} too! Without a word, {he} sat down. Then {he} {share}.
        * {hero} did not ask anything. {He} only came nearer and {share}.

        * {pal} looked up. For the first time, {pal_he} smiled. "That is nice," said {pal} in a soft voice. {game}.
        * For a while it was quiet. Then {pal} laughed. "Now it is better," {pal_he} said. {game}.
        * "Do you want to do it together?" asked {pal}. "Yes, please," said {hero}. {game}.

        --?

        ~ Then {pal} began to talk, and once {pal_he} had started, {pal_he} did not stop. {Pal_he} told {hero} about
          {pal_his} old home, {pal_his} cat, and the long trip.
        ~ {pal} told {hero} that at home everyone had known {pal_his} name. "I know your name too," said {hero}. "You
          are {pal}, and you are my friend."
        ~ One by one, the other children came to see what was going on. "Can we help?" they asked. {pal} made room for
          them.

        * After that, {hero} and {pal} walked to school together every day.
        * When the next new child came to the school, it was {pal} who went over first and sat down.
        * So {hero} found out that you don't always need words to say hello.
        * And {pal} was never alone at playtime again.
        """,
)

LOST_BABY = Plot(
    name="a lost baby animal",
    cast="hero: child, pet: animal",
    openers="""
        * Long ago, in a green valley, there lived a {child} named {hero}.
        * There was once a {child} named {hero} who got up early to feed the animals.
        """,
    tables=(
        """
        baby | parent | sound | coat
        lamb | sheep | a thin little bleat | soft white wool
        kitten | cat | a tiny mew | soft gray fur
        baby goat | goat | a thin little bleat | rough brown hair
        puppy | dog | a sad little whine | short yellow fur
        """,
        """
        clue | trail | stuck | free
        small footprints in the mud | The prints led along the stream and up to a thorn bush |
            caught in the middle of the thorns | bent the thorns back, one by one, and did not mind the scratches
        a bit of {coat} on the fence | {He} climbed over the fence and walked until {he} came to a deep ditch |
            at the bottom of the ditch | slid down the side, picked {pet_him} up, and climbed out again
        bent grass behind the barn | {He} followed the bent grass across the field to a pile of old wood |
            between two heavy boards | lifted the top board with all {his} strength
        {pet}'s little bell on the path | {He} picked it up and went on along the path to the old mill |
            behind the mill door, which the wind had blown shut | pushed and pushed until the door moved
        """,
    ),
    text="""
        * {He} helped on a farm, and {he} knew every animal by name. The smallest of them all was {a_baby} named
          {pet}.
        * {hero} helped to look after the animals on a farm. {He} loved them all, but {he} loved a {baby} named {pet}
          most.
        * On the farm next door there was {a_baby} named {pet}. {hero} had promised to take good care of {pet_him}.

        * One evening, {hero} counted the animals. {pet} was missing! The old {parent} called and called, but no one
          answered.
        * One afternoon, {hero} found that the gate was open. {pet} was gone, and the mother {parent} was running up
          and down.
        * One day at feeding time, {pet} did not come. The mother {parent} looked at {hero} with worried eyes.

        * "I will bring {pet_him} back," said {hero}. {He} put on {his} boots and took a lamp, because it would soon
          be dark.
        * "Don't worry," {hero} told the mother {parent}. "I will find your baby before night comes."
        * {hero} did not wait for anyone. It was cold outside, but {he} set out at once.

        ---

        ~ First {he} looked behind the hen house. Then {he} called into the woods. "{pet}! {pet}!" Only the wind
          answered.
        ~ {He} looked in the barn, and {he} looked by the well. {He} asked the geese, but geese only like to talk
          about themselves.
        ~ {He} walked up one hill and down another, but {he} saw only stones and grass.

        * {hero} was tired, but {he} did not turn back. And then {he} saw {clue}. {trail}.
        * {hero} stopped and looked closely at the ground, and then all around. There was {clue}! {trail}.
        * Just when {he} wanted to give up, {he} noticed {clue}. {trail}.

        * {He} stood still and listened. {Sound}! There was {pet}, {stuck}.
        * From somewhere near came {sound}. It was {pet}, {stuck}.
        * "{pet}?" {he} called. {Sound} answered {him}. The poor {baby} was {stuck}.

        --?

        * "Hold still," said {hero}. {He} {free}. {pet} was free!
        * "I am here now," {he} said. {He} {free}, and then {he} had {pet} in {his} arms.
        * {hero} {free}. {pet} pressed {pet_his} cold nose against {hero}'s neck.

        ~ {hero} put {pet} inside {his} coat, where it was warm, and carried {pet_him} home under the first stars.
        ~ It was a long way back. {hero} sang all the way, so that {pet} would not be afraid.
        ~ The moon came up and showed them the way home.

        * The mother {parent} ran to meet them and licked {pet} from head to tail. Then {hero} got a lick, too.
        * When they came through the gate, the mother {parent} gave a glad cry. {pet} drank and drank, and then
          {pet_he} fell asleep.
        * How happy the mother {parent} was! All night long {pet} slept warm at {pet_his} mother's side.

        * {hero} closed the gate and checked it twice. "Now everybody is home," {he} said.
        * And {hero}, who was wet and tired and full of mud, was the happiest {child} in the whole valley.
        * The next morning, {pet} followed {hero} everywhere, and {he} did not mind at all.
        * After that, {pet} never went far from {hero}, and {hero} always closed the gate.
        """,
)

SURPRISE = Plot(
    name="a surprise",
    cast="hero: child, pal: child, adult: grand",
    openers="""
        * One bright morning, a {child} named {hero} woke up very early, because it was a special day.
        * Long ago, in a village by the sea, there lived a {child} named {hero}.
        """,
    tables=(
        """
        plan | work | mishap | idea | making | gift
        bake a cake | mixed flour and eggs and a lot of sugar | the cake came out black and as flat as a plate |
            We still have flowers in the garden | picked daisies and wove them together, one by one |
            a crown of daisies
        paint a picture | painted a house and a tree and a round sun |
            {pal} bumped the water jar, and the sun ran into the tree | We can make a picture without paint |
            laid shells and leaves and buttons on a board and stuck them down |
            a picture made of shells and leaves
        build a little stool | sawed the wood and hit the nails | the stool had one long leg and fell over each time |
            The boards are still good | nailed the boards together again in a new way and put seeds inside |
            a house for the birds
        sing a song | practiced so loudly that the cows ran away | {hero} lost {his} voice and could only whisper |
            We can tell it with our hands | made small puppets out of old socks | a puppet show
        """,
    ),
    text="""
        * It was {adult}'s birthday, and {hero} wished to give {adult_him} the best surprise ever. {His} friend {pal}
          wanted to help.
        * {hero} wanted to make {adult} happy on {adult}'s birthday. So {he} asked {his} friend {pal} to help.
        * It was the day that {adult} turned seventy. "We need a surprise," {hero} told {his} friend {pal}.

        * "Let's {plan}!" said {hero}. "But it is a secret," said {pal}. "Not a word!"
        * "I know," said {hero}. "We will {plan}." {pal} thought that was a wonderful plan.
        * They whispered for a long time. In the end they chose to {plan}.

        * They {work}. But oh dear, {mishap}!
        * All morning they {work}. And then, oh no, {mishap}!
        * First it went well. They {work}. But then {mishap}.

        ~ {hero} wanted to cry. "Now we have nothing," {he} said, "and {adult} will be here soon."
        ~ "It is spoiled," said {hero}. "All our work was for nothing."
        ~ They looked at each other. There was only one hour left.

        ---

        * {pal} walked around the room three times, thinking. Then {pal_he} stopped. "{idea}," said {pal}.
        * "Wait," said {pal}. "{idea}."
        * {pal} looked around slowly, and then {pal_he} began to smile. "{idea}," said {pal}.

        * So they {making}. They were so busy that they forgot to be sad.
        * {hero} jumped up. Quickly they {making}. This time they helped each other with every part.
        * "Yes!" said {hero}. They {making}, and they were done just in time.

        --?

        * When {adult} came in, they both shouted, "Surprise!" And there it was: {gift}.
        * The door opened. "Happy birthday!" they called, and they showed {adult_him} {gift}.
        * "Close your eyes," said {hero} at the door. When {adult} opened them again, there was {gift}, just for
          {adult_him}.

        * {adult} put one hand on {adult_his} heart. "You made this for me?" {adult_he} asked. "It is the best present
          I have ever had."
        * {adult} laughed until there were tears in {adult_his} eyes. "How did you know what I wanted?" asked {adult}.
        * For a moment {adult} could not speak. Then {adult_he} gave them both a big, long hug.

        * Then {hero} told {adult_him} what had gone wrong, and they laughed about it together.
        * "It was our second plan," said {hero}. "Second plans are often the best ones," said {adult}.
        * That evening {hero} said to {pal}, "I am glad that the first plan went wrong."
        * {adult} talked about that birthday for many years.
        """,
)

CAVE = Plot(
    name="the dark cave",
    cast="hero: animal, pal: animal, beast: animal",
    openers="""
        * One foggy morning, a little {species} named {hero} was looking for something new to do.
        * Long ago, at the foot of a big mountain, there lived a little {species} named {hero}.
        """,
    tables=(
        """
        species | den
        rabbit | at the edge of the woods
        fox | in a den under a hill
        badger | in a den under a hill
        hedgehog | under a pile of leaves
        """,
        "friend \n squirrel \n duck \n mouse \n beaver",
        """
        noise | who | why | joy
        Hoo, hoo, hoo | a small owl | I was only calling for a friend, but everybody runs away |
            The owl told them stories about the moon until it was time to go home
        Drip, clang, drip, clang | an old bear with a big pot | I was only cooking soup, and I always make too much |
            They sat down around the pot, and each of them had two bowls of soup
        Flap, flap, flap | a very shy bat | I was only learning to dance, and I did not want anyone to see |
            They all danced together, and the bat danced upside down
        Snore, whistle, snore, whistle | a fat old toad | I was only taking a nap, and I have a bit of a cold |
            They brought the toad some warm leaves, and the toad showed them a wall of shining stones
        """,
    ),
    text="""
        * {hero}'s best friend was {a_friend} named {pal}. Near their home there was a cave, and nobody ever went in.
        * {hero} and {pal} the {friend} played together every day, but they never played near the cave.
        * {hero} had a friend, {a_friend} named {pal}. They knew every tree and every stone. They did not know the
          dark cave.

        * "A monster lives in there," said the other animals. {hero} wished to know if that was true.
        * Everyone said that something terrible lived in that cave. {hero} wondered what it was.
        * "What is in it?" asked {hero}. "Something with teeth," said {pal}. But {pal} had never seen it.

        * {one_day}, their ball rolled down the path and right into the cave.
        * {one_day}, they ran after a butterfly, and all at once they stood in front of the cave.
        * Soon after, it began to rain very hard, and the cave was the only dry place around.

        * They looked in. It was as black as ink. "{noise}," came a sound from deep inside.
        * It was cold and dark in there. "{noise}!" went something in the back.
        * They took one step, and then another. "{noise}." What was that?

        * "Let's run!" said {pal}. {hero}'s knees shook too. "We can be afraid and still look," {he} said. "Hold on to
          me."
        * {pal} hid behind {hero}. "I want to go home," {pal_he} said. "We will go together, and we will go slowly,"
          said {hero}.
        * {hero} wanted to run away, but {he} wanted to know even more. "Stay close to me," {he} told {pal}.

        ---

        ~ Step by step they went in. Their eyes got used to the dark. "{noise}." Now it was very near.
        ~ They felt their way along the wall. There was a bend, and behind the bend there was a little light.
        ~ {hero} counted ten steps. At the last one, {he} stopped. Something moved.

        ~ "Who is there?" asked {hero}. {His} voice was small, but it did not shake.
        ~ "Hello?" called {hero}. "We don't want to hurt you."
        ~ {hero} took all {his} courage. "Good day!" {he} said. "My name is {hero}."

        * And what did they see? It was no monster. It was {who}! "Please don't be scared," said a friendly voice.
          "{why}."
        * Out of the shadow came {who}. "Oh, visitors!" said a kind voice. "{why}."
        * There sat {who}, looking just as surprised as they were. "Did I frighten you?" asked a gentle voice.
          "{why}."

        --?

        ~ {hero} began to laugh, and {pal} laughed too. "We thought you were a monster," said {pal}.
        ~ "Is that all?" said {pal}, and {pal_he} came out from behind {hero}.
        ~ {hero} and {pal} looked at each other. All that time they had been afraid of a friend!

        * {joy}.
        * What a good time they had! {joy}.
        * They stayed all afternoon. {joy}.

        * After that, the cave was not a scary place anymore. It was a place where a friend lived.
        * "May we come back tomorrow?" asked {hero}. And they did, tomorrow and the day after, too.
        * At home they told everyone, "There is no monster in the cave. There never was."
        * The dark is not so dark when you know who lives in it.
        """,
)

RACE = Plot(
    name="the race",
    cast="hero: animal, pal: animal",
    openers="""
        * One summer morning, a little {species} named {hero} stretched {his} legs and could not stand still.
        * Long ago, in a wide green valley, there lived a little {species} named {hero}.
        """,
    tables=(
        """
        species | den
        rabbit | in a meadow full of clover
        deer | at the edge of the woods
        pony | on a farm by the river
        fox | in a den under a hill
        """,
        """
        racer | trouble | fix
        turtle | lying upside down, with all four legs in the air |
            pushed and pushed with {his} nose until {pal} rolled over onto {pal_his} feet
        hedgehog | stuck in a muddy hole, and the mud was getting deeper |
            held out a long stick and pulled {pal} out, inch by inch
        goat | caught in a bush by {pal_his} beard |
            bit off the thorny twigs, one after another, until {pal} was free
        duck | sitting on a stone with a thorn in {pal_his} foot |
            took the thorn between {his} teeth and pulled it out very gently
        """,
        "prize \n a basket of sweet apples \n a crown of clover \n a golden bell \n a big carrot cake",
        """
        part
        the big oak tree
        the old stone bridge
        the last hill
        the field of tall grass
        """,
    ),
    text="""
        * {hero} was the fastest runner of all the animals, and {he} dreamed of winning the great summer race.
        * {hero} loved to run. More than anything {he} wished to win the big race, just once.
        * Every day {hero} ran up the hill and down again. {He} wanted to win the big race and bring home the prize.

        * The prize was {prize}. At the starting line stood {pal} the {racer}. "Good luck," said {pal}. "You too,"
          said {hero}.
        * At last it was the day of the race. The prize was {prize}. {pal} the {racer} was in the race as well, and
          {pal_he} was very nervous.
        * All the animals came to see it. The winner would get {prize}. "I only hope I can finish," said {pal} the
          {racer}.

        * "Ready, set, go!" called the owl. Off they went! By the time they came to {part}, {hero} was far in front.
        * The owl gave the sign, and they all ran. {hero} flew along like the wind. At {part}, {he} looked back, and
          nobody was close.
        * "Go!" cried the owl, and the dust rose up. {hero} passed one runner after another. Near {part}, {he} was the
          first.

        ---

        * Then {he} heard a cry. "Help! Please, help!" It was {pal}. {Pal_he} had taken a short path, and now {pal_he}
          was {trouble}.
        * But what was that? Somebody was calling. Down a short path {hero} saw {pal}, {trouble}.
        * Suddenly there was a weak voice beside the road. {pal} had tried a short way through the bushes. There
          {pal_he} was, {trouble}.

        * {hero} looked ahead. {He} could already see the finish line. Then {he} looked at {pal}.
        * "If I stop, I will lose," thought {hero}. {He} took two more steps. Then {he} turned around.
        * The others were coming closer. {hero} could hear their feet. But {he} could not just run on.

        * "I am coming!" {he} called. {He} {fix}. It took a long time.
        * {hero} ran to {pal}. {He} {fix}.
        * "Hold still," said {hero}. Then {he} {fix}.

        ~ While {he} worked, the other runners went by, one, two, three, four.
        ~ The other animals rushed past them, and far away the crowd began to cheer. Somebody had won.

        --?

        ~ "Now you have lost because of me," said {pal}. "Come on," said {hero}. "We can still finish." And they went
          on side by side.
        ~ "Thank you," said {pal}. "But the race!" {hero} smiled. "There is one every year," {he} said. "There is only
          one of you."
        ~ {pal} could only walk slowly now, so {hero} walked slowly too. They talked and looked at the flowers.

        * They were the last ones to cross the line. But then something surprising happened. The winner, a young
          horse, came over and gave the prize to {hero}. "I saw what you did," said the horse.
        * They came in last of all, and yet everybody clapped. "I ran fast," said the winner, "but you did something
          better." And the winner shared the prize with both of them.
        * When they crossed the line together, the owl called out, "Here come the two best friends in the valley!" And
          all the animals cheered louder than before.

        * {hero} did not win the race that day, but {he} won a friend.
        * That night {hero} was tired and happy. It had been a good race, even if it was a slow one.
        * The next summer, they ran together again, and {hero} did not care at all who was first.
        * Being kind is better than being first.
        """,
)

BORROW = Plot(
    name="borrowing without asking",
    cast="hero: child, pal: child",
    openers="""
        * One warm morning, a {child} named {hero} leaned on the garden gate and looked over at the house next door.
        """,
    tables=(
        """
        thing | use | harm | mend | gift
        wagon | pulled it up the hill and rode down as fast as {he} could | it hit a stone, and a wheel came off |
            found the wheel in the grass and put it back on with a new nail | painted a bright star on the side
        drum | marched through the garden, beating it with two big sticks | one stick went right through the top |
            cut a new skin for the drum and pulled it tight | tied {a_color} ribbon around it
        umbrella | jumped off the wall with it to see if {he} could fly | the umbrella turned inside out and tore |
            sewed up the hole with small, careful stitches | sewed {a_color} flower on top of the seam
        toy boat | put it into the stream to see it sail | it crashed into a rock, and the mast broke off |
            made a new mast from a straight stick and glued it in | painted {pal}'s name on the side
        """,
        "helper \n Grandma \n Grandpa \n Mom \n Dad",
    ),
    text="""
        * {His} friend {pal} had {a_color} {thing}, and {hero} thought it was the finest {thing} in the world.
        * Next door lived {his} friend {pal}, who had a shiny new {thing}. How {hero} wished to play with it!
        * {hero} and {pal} were good friends. {pal} had a wonderful {thing}, and {hero} wanted to try it more than
          anything.

        * {one_day}, {pal} was not at home, but the {thing} stood on the porch. "I will take it for just a minute,"
          thought {hero}.
        * {one_day}, {hero} saw the {thing} all alone in {pal}'s yard. {He} looked around for {pal}, but nobody was
          there. "I can ask later," {he} said to {himself}.
        * {one_day}, {pal} was away. The {thing} was right there beside the fence. "{pal} won't mind," {hero} told
          {himself}, but {he} was not so sure.

        * {He} {use}. It was so much fun! But then, oh no, {harm}.
        * {hero} took it and {use}. But then {harm}.
        * So {he} took the {thing} and {use}. What fun it was, until {harm}.

        ---

        ~ {hero}'s heart sank. {He} could put the {thing} back and run away, and no one would ever know. But {he}
          would know.
        ~ "What have I done?" {he} whispered. {He} thought about hiding it behind the bushes. Then {he} thought about
          {pal}'s face.
        ~ {hero} felt cold all over. "Maybe I can say the wind did it," {he} thought. But that was not true.

        * {He} waited by the gate until {pal} came home. "I took your {thing} without asking," said {hero}, "and I
          broke it. I am sorry."
        * When {pal} came back, {hero} was standing there with the broken {thing}. "It was me," {he} said. "I should
          have asked you first."
        * {He} rang {pal}'s bell with a shaking finger. "I have to tell you something bad," {he} began, and {he} told
          {pal} everything.

        ~ {pal} was angry. "That was mine!" {pal_he} said, and {pal_he} shut the door. {hero} could not blame
          {pal_him}.
        ~ {pal} did not say a word. {Pal_he} just looked at the {thing}, and a tear ran down {pal_his} nose.
        ~ "You should have asked," said {pal}. "I would have said yes."

        --?

        * {hero} knew that being sorry was only half of it. So {he} took the {thing} to {helper}, who showed {him}
          what to do. {hero} {mend}.
        * {hero} told {helper} about it. "Sorry is a good start," said {helper}. "Now let's see what your hands can
          do." {hero} worked all afternoon. {He} {mend}.
        * {hero} asked {helper} for help. Together they looked at the {thing}, and then {hero} {mend}.

        ~ And because {he} wanted it to be better than before, {he} {gift}.
        ~ When that was done, {he} {gift}.
        ~ Last of all, {he} {gift}, because {he} wanted {pal} to smile again.

        ---

        * {pal} turned the {thing} around and around. "It is even nicer now," {pal_he} said. "Do you want to play with
          it together?"
        * The next day {hero} carried it back. {pal} looked at it for a long time. "You worked hard," {pal_he} said at
          last. "We are friends again."
        * When {pal} saw the {thing}, {pal_he} could not stay angry. "Come on," {pal_he} said. "You can have the first
          turn."

        * From then on, {hero} always asked first, and {pal} almost always said yes.
        * "May I?" asked {hero}. It was such an easy thing to say.
        * A small question first is better than a big sorry later.
        * And they played until they were called in for supper.
        """,
)

BRIDGE = Plot(
    name="the bridge",
    cast="hero: animal, pal: animal, beast: animal",
    openers="""
        * There was once a little {species} named {hero} who loved the sound of the stream.
        * Long ago, before there were any roads, there lived a little {species} named {hero}.
        """,
    tables=(
        """
        species | den
        rabbit | beside a stream
        mouse | in the roots beside a stream
        hedgehog | under a bush beside a stream
        squirrel | in a tree beside a stream
        """,
        "friend \n mole \n porcupine \n chipmunk \n lamb",
        """
        helper | skill | work
        beaver | I have strong teeth, but I never know what to build |
            The beaver chewed at a tall tree until it fell with a crash, right across the stream
        goat | I have a strong head, but nobody ever needs it |
            The goat pushed against a dead tree, once, twice, until it fell right across the stream
        old horse | I can pull, but no one asks me anymore |
            The horse pulled a long log out of the woods and laid it right across the stream
        """,
        """
        fail
        put stones into the water, but the stream carried them away
        pushed a branch into the water, but it floated off like a toy boat
        tried to jump across, but {he} fell in and came out as wet as a fish
        threw a rope of grass to the other side, but it broke in the middle
        """,
    ),
    text="""
        * {His} best friend was {a_friend} named {pal}, who lived on the other side of the stream. They met every day
          on the old stepping stones.
        * On the other side of the stream lived {pal} the {friend}. Every day {hero} crossed a fallen branch to play
          with {pal_him}.
        * {hero} liked nothing better than to cross the stream and play with {his} friend {pal}, {a_friend}.

        * But it rained for three days. The water rose and washed their path away.
        * Then the snow melted in the mountains. The stream grew wide and wild, and there was no way across anymore.
        * Then came a week of rain, and the stream got so deep that nobody could cross.

        ~ "I miss you!" called {hero}. "I miss you too!" called {pal}. But it was no fun to shout all day.
        ~ {hero} stood on one side, and {pal} stood on the other. They could wave, but they could not play.
        ~ "How will you come to my party?" called {pal} across the water. {hero} did not know.

        * "I will find a way," said {hero}. {He} {fail}.
        * First {hero} {fail}.
        * {hero} thought hard. Then {he} {fail}.

        ---

        * {hero} sat down and wept a little. Then along came {a_helper}. "What is wrong?" asked the {helper}.
        * {A_helper} had watched it all. "That will not work," said the {helper} kindly.
        * "It is no use," said {hero}. {He} had not seen {a_helper} come up. "May I help?" asked the {helper}.

        * "We need a bridge," said {hero}, "but I am not strong." The {helper} thought. "{skill}," said the {helper}.
          "You can be the one who plans."
        * "We have to get across," said {hero}. "{skill}," said the {helper} shyly. {hero} looked at the stream, and
          then at the {helper}. "I know what to build!" {he} cried. "We need one long tree."
        * {hero} told the {helper} about {pal}. "{skill}," said the {helper}. "Tell me what to do." So {hero} showed
          {beast_him} the narrowest part of the stream.

        * They went to work. {work}. {hero} put mud and stones at both ends to hold it.
        * {work}. Then {hero} ran back and forth with moss and clay until the log lay still.
        * Then they began. {work}. {pal} pushed big stones against the far end to hold it.

        --?

        * {hero} put one foot on the bridge. It did not shake. {He} ran across and fell into {pal}'s arms.
        * "Is it safe?" called {pal}. "Let's see!" said {hero}. They met in the middle.
        * Carefully {hero} walked over, step by step. "I am here!" {he} shouted, and {pal} danced around {him}.

        ~ "Come over too!" they called to the {helper}. And so the two friends became three.
        ~ That evening there was a party on the bridge, and the {helper} got the biggest piece of pie.
        ~ {pal} hugged {hero}, and then {pal_he} hugged the {helper} as well, as far up as {pal_he} could reach.

        * The bridge is still there today, and everybody uses it.
        * One had the plan, one had the strength, and together they had a bridge.
        * After that it could rain as long as it liked. Nothing could keep the friends apart.
        * "A stream is only water," said {hero}. "A friend is a friend."
        """,
)

STAR = Plot(
    name="the star wish",
    cast="hero: child, adult: elder",
    openers="""
        * Long ago, in a village by the sea, there lived a {child} who loved the night sky. The {child}'s name was
          {hero}.
        * Long ago, on top of a high hill, there lived a little {child} named {hero}.
        """,
    tables=(
        """
        light | want
        star | the brightest star of all
        moon | the big round moon
        """,
        """
        try | again
        put a ladder against the house and climbed to the top | The sky was still far, far away
        took a net and ran through the garden | {He} swung it and swung it, but the net stayed empty
        climbed the apple tree, up to the thinnest branch | {He} stretched out {his} hand, but {he} caught only leaves
        threw a long rope into the air | It came down again and landed on {his} own head
        """,
        """
        water
        pond behind the house
        bucket of water by the well
        big rain barrel next to the door
        """,
    ),
    text="""
        * Every night {hero} looked out of the window at {want}. "I wish it were mine," {he} said.
        * {hero} could not sleep without looking at {want}. "I want to keep it in my room," {he} said one evening.
        * There was nothing {hero} wanted as much as {want}. {He} wanted to hold it and take it to bed.

        * So one clear night, {he} {try}. {again}.
        * When everyone was asleep, {he} went outside in {his} socks. {He} {try}. {again}.
        * One night {he} {try}. {again}.

        ~ "Come down!" {he} called. "I will be good to you." But the {light} did not come down.
        ~ {He} waited a long time. The {light} only looked at {him} and was silent.
        ~ "Why won't you come?" {he} asked, and {his} voice was a little bit angry.

        ---

        * {adult} heard {him} and came out with a blanket. "What are you doing out here?" asked {adult}. {hero} told
          {adult_him} everything.
        * A lamp came through the garden. It was {adult}. "It is late, little one," said {adult}. "I can't go to bed
          without the {light}," said {hero}.
        * Then the door opened, and {adult} sat down next to {him} in the grass. "You want the {light}," said {adult}.
          "When I was small, I wanted it too."

        * {adult} did not say that it was silly. {Adult_he} only took {hero} by the hand and led {him} to the {water}.
          "Look," said {adult}.
        * Then {adult} stood up. "Come with me," {adult_he} said. They walked to the {water}. "Don't look up now. Look
          down."
        * {adult} smiled. "There is a place where you can be very close to it," {adult_he} said, and together they
          walked to the {water}.

        * There was the {light}! It lay in the dark water and shone. "I have it!" cried {hero}. But when {he} touched
          it, it broke into a hundred bits.
        * {hero} bent over. In the water, close enough to touch, was the {light}. {He} put {his} hands in, but the
          light ran out between {his} fingers.
        * {hero} opened {his} eyes wide. The {light} was right there in the water. {He} reached for it, and it
          trembled and was gone.

        * "Now I have hurt it," {he} said. "Wait," said {adult}. The water grew still, and the {light} came back.
        * {He} pulled back {his} hand. Slowly the water became smooth, and the {light} was whole again.
        * "Be still," said {adult} softly. After a while, the {light} was there again, as bright as before.

        --?

        * "You see," said {adult}, "you can't keep it, but you can look at it whenever you like. Other children are
          looking at it too, right now." {hero} liked that.
        * "If it lived in your room," said {adult}, "who would shine for the sailors and the owls?" {hero} thought
          about the sailors. "They need it more," {he} said.
        * {hero} was quiet. Then {he} said, "I think it belongs to everyone." "Yes," said {adult}, "and so it is yours
          as well."

        ~ They sat under the blanket and looked until {hero}'s eyes fell shut, and {adult} carried {him} in.
        ~ From then on, {hero} did not try to catch the {light} anymore. {He} only waved and said good night.
        ~ When {hero} was back in bed, the {light} shone through the window onto {his} pillow. It had come to {him}
          after all.
        ~ And that night {hero} slept better than ever before.
        """,
)

MONSTER = Plot(
    name="the noise in the night",
    cast="hero: child, adult: elder",
    openers="""
        * Long ago, in an old house on a windy hill, there lived a {child} named {hero}.
        * There was once a {child} named {hero} who was brave all day long, but not at night.
        """,
    tables=(
        """
        sound | where | cause | fix
        Tap, tap, tap | at the window | a long branch of the apple tree, and the wind was tapping with it on the glass |
            {adult} tied the branch back with a bit of string
        Whoo, whoo | in the chimney | the wind, which was blowing over the top of the chimney as if it were a flute |
            {hero} took an empty bottle and blew over it, and it made the very same sound
        Bang, bang | behind the house | the gate of the hen house, and the wind was opening it and closing it again |
            {hero} shut the gate and put the hook in its place
        Creak, creak | above the bed | the little wooden door to the attic, which was swinging in the wind |
            {adult} pushed the door shut, and {hero} put a folded paper in the crack
        Rattle, rattle | outside the door | an old tin can, and the wind was rolling it up and down the steps |
            {hero} picked up the can and set it on the shelf
        """,
        """
        idea | looks
        It must be a giant | with feet as big as boats
        It must be a monster | with green hair and long claws
        It must be a dragon | with a tail as long as the street
        It must be a wolf | with yellow eyes
        """,
    ),
    text="""
        * {hero} had just moved into a new room, all by {himself}, and {he} wanted to sleep there like a big {child}.
        * {hero} wished that {he} could sleep without a lamp, but the night was so very dark.
        * For the first time, {hero} wanted to sleep the whole night in {his} own bed.

        * {adult} kissed {him} good night and went downstairs. Everything was quiet. Then it began. "{sound}," it went
          {where}.
        * The clock struck nine. The house was still. "{sound}," went something {where}.
        * {hero} was almost asleep when {he} heard it. "{sound}!" There was something {where}!

        ~ {hero} sat up. "{idea}," {he} thought, "{looks}."
        ~ {hero} pulled the blanket up to {his} nose. "{idea}," {he} whispered, "{looks}."
        ~ {hero} did not dare to move. "What is that?" {he} thought. "{idea}, {looks}!"

        * "{sound}." Now it was even louder. {hero} jumped out of bed and ran to {adult}.
        * It stopped. {hero} let out {his} breath. "{sound}!" There it was again! "{adult}!" {he} cried.
        * {He} put {his} fingers in {his} ears, but it did not help. So {he} tiptoed downstairs to find {adult}.

        ---

        * "There is something {where}," said {hero}. {adult} did not laugh. "Shall we go and see?" asked {adult}.
        * "What does it look like?" asked {adult}. {hero} thought about that. "I don't know," {he} said. "I only heard
          it." "Then we should take a look," said {adult}.
        * {adult} listened. "I hear it too," said {adult}. "I wonder what it wants. Do you want to find out with me?"

        * {hero} took the lamp in one hand and {adult}'s hand in the other. {His} heart went bump, bump, bump.
        * {hero} was not sure. But with {adult} next to {him}, {he} felt a little braver. They took the lamp and went.
        * They put on their slippers and lit the lamp. Step by step they went closer.

        * "{sound}." {hero} held the lamp up high. And what was it? It was {cause}!
        * They looked around the corner. There was no giant, no wolf, and no monster. It was only {cause}.
        * {hero} counted to three and looked. It was {cause}. That was all!

        --?

        ~ {hero} began to giggle. "Silly wind," {he} said. "You woke me up!"
        ~ "So that is my monster," said {hero}, and {he} had to laugh.
        ~ "Good evening, wind," said {adult}, and {hero} laughed so hard that {he} had to sit down.

        * Then {fix}.
        * Before they went back to bed, {fix}.
        * They knew what to do. {Fix}.

        * Soon {hero} was in bed again, and this time {he} did not need the lamp.
        * "If I hear something again," said {hero}, "I will go and look." And {he} slept until morning.
        * Back in bed, {he} listened to the wind singing around the house. It was a friendly song.
        * Most monsters are very small when you hold up a lamp.
        """,
)

BIRD = Plot(
    name="the hurt bird",
    cast="hero: child, adult: elder, beast: animal",
    openers="""
        * There was once a {child} named {hero} who put out crumbs every day.
        * Long ago, in a village by the sea, there lived a {child} named {hero}.
        """,
    tables=(
        """
        bird | food | song
        sparrow | seeds and crumbs | chirped
        robin | berries and small worms | sang
        blackbird | apple and small worms | whistled
        finch | seeds and berries | sang
        """,
        """
        bed
        an old shoe box with a soft sock in it
        a basket with warm wool in it
        a wooden box filled with hay
        a big hat with a scarf inside
        """,
        "spot \n under the hedge \n on the front step \n beside the road \n under the window",
    ),
    text="""
        * {hero} loved birds and wished that one of them would stay with {him} and be {his} friend.
        * {hero} had no brothers or sisters, and {he} often wished for a friend.
        * More than anything, {hero} wanted a pet of {his} own.

        * One autumn day, {he} found a little {bird} {spot}. One wing hung down, and it could not fly.
        * One windy day, something small lay {spot}. It was {a_bird}, and its wing was hurt.
        * After a stormy night, {he} heard a weak peep {spot}. There sat {a_bird} with a hurt wing.

        ~ "Don't be afraid," whispered {hero}. {He} picked it up very gently and felt its heart beating fast.
        ~ {hero} made a nest with {his} two hands and carried the bird home.
        ~ The bird was too weak to hop away. {hero} put it inside {his} warm cap and ran home.

        * {adult} looked at the wing. "It will heal," said {adult}, "but it takes time, and somebody must take care of
          the bird." "I will," said {hero}.
        * "Can it stay?" asked {hero}. "Until it can fly," said {adult}. "A wild bird is not a toy."
        * {adult} wrapped the wing in a strip of cloth. "Now it needs food and rest," said {adult}, "and a good
          nurse."

        --?

        ~ {hero} made a bed out of {bed}. Every day {he} brought {food}.
        ~ For a bed, the {bird} got {bed}. {hero} fed it {food}, bit by bit.
        ~ The {bird} slept in {bed}. In the morning {hero} gave it {food}, and in the evening {he} told it a story.

        * The days went by, and the {bird} grew stronger. It hopped onto {hero}'s finger, and one day it even {song}
          for {him}.
        * Week after week the {bird} got better. Soon it {song} every time {hero} came in.
        * At first the {bird} only slept. Then it hopped, and then it {song}. {hero} had never been so happy.

        ---

        * One bright day, the {bird} spread both wings and flew around the room. Then it sat by the window and looked
          out.
        * Before long, the {bird} flew all the way up to the lamp and tapped on the window with its beak.
        * When the days grew warm, the {bird} could fly again. It sat by the window and watched the other birds.

        * {hero} knew what it wanted. "But I will miss it," {he} said. "I know," said {adult}.
        * "Does it have to go?" asked {hero}. "What do you think?" asked {adult}. {hero} looked at the sky for a long
          time.
        * {hero} felt a lump in {his} throat. {He} wanted to keep the {bird} forever. But {he} wanted it to be happy
          even more.

        * {He} opened the window. The {bird} sat on {his} hand one last time, and then it was gone, up into the blue.
        * So {hero} carried it into the garden and opened {his} hands. The {bird} flew in a circle over {his} head and
          away over the roofs.
        * "Fly well," said {hero}, and {he} opened the window wide. Out went the {bird}, higher and higher.

        --?

        * For a few days it was very quiet in the house. Then one morning there was a tap on the glass. It was the
          {bird}!
        * {hero} was sad. But the next week, someone {song} outside {his} window. {He} knew that voice!
        * All week {hero} looked up at the trees. And one day, the {bird} was sitting on the fence, and it was not
          alone.

        * It had not stayed, but it had come back, and that was even better.
        * From then on it came every day to say good morning.
        * "You are free," said {hero}, "and you are still my friend."
        * A friend is not someone you keep. A friend is someone who comes back.
        """,
)

ROOSTER = Plot(
    name="the rooster and the sun",
    cast="hero: rooster, pal: animal",
    openers="""
        * Long ago, on a farm behind the hills, there lived a young rooster named {hero}.
        * On a farm with a red barn lived a proud young rooster named {hero}.
        """,
    tables=(
        "species | den \n rooster | on a farm with a red barn \n rooster | in a yard full of hens",
        "friend \n horse \n goose \n sheep \n donkey",
        """
        late
        danced at a wedding until midnight
        caught a bad cold
        stayed awake until midnight to count the stars
        ate too many cherries
        """,
    ),
    text="""
        * Every morning {hero} sang, and every morning the sun came up. So {hero} believed that {he} was the one who
          woke the sun.
        * Before it was light, {hero} flew up on the fence and sang. Then the sun rose. "I did that," {he} told
          everyone.
        * {hero} had a very loud voice. "When I sing, the sun comes up," {he} said. "Without me, it would be dark
          forever."

        ~ {He} wished that everybody would thank {him} for it.
        ~ {He} walked up and down with {his} chest out. "You are welcome," {he} said to the hens, who had not said
          anything.
        ~ "Bow to me," {he} told the ducks, "or there will be no day tomorrow."

        * {pal} the {friend} only smiled and went on eating.
        * "Is that so?" said {pal} the {friend}, but {pal_he} did not argue.
        * "Dear me," said {pal}, the old {friend}.

        * One night, {hero} {late}. The next morning, {he} slept and slept.
        * But one evening, {hero} {late}. When morning came, {he} did not hear a thing.
        * Then it happened. {hero} {late}, and in the morning {he} did not wake up in time.

        * When {he} opened {his} eyes, the yard was bright. The sun was high in the sky, and nobody had sung at all.
        * Something warm touched {his} beak. {He} opened one eye, and then the other. It was the sun!
        * {He} woke with a jump. "I must sing!" {he} cried. But it was already day. The sun had come up all alone.

        ---

        * {hero} hid behind the barn. "The sun does not need me," {he} said. "I am only a noisy bird."
        * {hero}'s tail feathers drooped. {He} crept under the wagon and did not come out. The next morning {he} did
          not sing either.
        * "So it was never me," {he} thought, and {he} was so ashamed that {he} put {his} head under {his} wing.

        * That day everything went wrong. The farmer slept too long, the cows were not milked, and the children came
          late to school.
        * But what a mess there was! The farmer was still in bed, the hens had not had their breakfast, and the
          baker's bread was burned.
        * Soon there was trouble all over the farm. Nobody had gotten up. The pigs were hungry, and the milk cart had
          gone off without the milk.

        --?

        * {pal} came looking for {him}. "Where were you?" asked {pal}. "We all slept too long."
        * At last {pal} found {him}. "There you are," said {pal}. "We need you."
        * {pal} sat down beside {him}. "Why is it so quiet here?" asked {pal}.

        * "The sun comes up without me," said {hero}. "Yes," said {pal} gently. "You don't wake the sun. You wake us.
          And that is much more important to us."
        * "I thought I woke the sun," said {hero} in a low voice. "The sun never sleeps," said {pal}. "But we do. We
          are the ones who need your song."
        * {hero} told {pal_him} why {he} was sad. {pal} laughed kindly. "The sun knows the way," said {pal}. "It is
          the rest of us who need some help in the morning."

        ~ {hero} lifted {his} head a little. "You need me?" {he} asked. "Every day," said {pal}.
        ~ {hero} thought about this for a long time. Then {he} shook the dust from {his} feathers.
        ~ "Oh," said {hero}. {He} had never seen it that way.

        * The next morning {hero} sang again, not for the sun, but for {his} friends.
        * Early the next day, {hero} was back on the fence. {He} sang as well as {he} could, and in the house a window
          opened. "Thank you, {hero}!" called the farmer.
        * So {hero} went on singing every morning. But {he} never again said that {he} woke the sun.

        ~ And the sun came up, just as it always does.
        ~ It is good to be needed, and there is no need to be proud.
        ~ Then the sun rose, round and golden, and {hero} wished it a good day.
        """,
)

DRAGON = Plot(
    name="the little dragon",
    cast="hero: animal, pal: child",
    openers="""
        * Long ago, when there were still dragons, there lived a little dragon named {hero}.
        * High up in the mountains, there once lived a young dragon named {hero}.
        """,
    tables=(
        "species | den \n dragon | in a cave above a village \n dragon | on a mountain above a village",
        """
        burn | what
        burned a hole in the baker's hat | the baker's hat
        turned the farmer's hay to ashes | the hay
        set the flag on the tower on fire | the flag
        burned the mayor's long beard | the mayor's beard
        """,
        """
        cold | need | deed | thanks
        snow put out every fire, and all the wood was wet | The ovens were cold, and the babies were crying |
            went from house to house and blew one small flame into each oven |
            the baker made a loaf of bread as big as a cart
        ice closed the river, and the boats with the food could not come in |
            The people looked at the ice, and they were hungry |
            walked along the river and breathed on the ice until it cracked and melted |
            the sailors let {hero} ring the ship's bell
        a thick fog came in, and {pal}'s father was lost on the hill |
            The people lit their lamps, but the lamps were too weak |
            sat down on the highest rock and blew a tall flame, and {pal}'s father followed the light home |
            {pal}'s father shook {hero}'s paw
        deep snow covered the road, and the doctor could not get through |
            {pal}'s baby brother was ill, and everyone was worried |
            walked down the road and melted the snow, step by step, all the way to the doctor's door |
            the doctor gave {hero} a warm red scarf
        """,
    ),
    text="""
        * {hero} was friendly, but {he} had one problem. Whenever {he} sneezed, fire came out of {his} nose.
        * All {hero} wanted was a friend. But {he} could not talk for long without a puff of fire coming out.
        * {hero} was lonely in {his} cave. {He} wished to play with the children of the village, but everyone was
          afraid of {his} fire.

        * Once {he} came down to say hello, and {he} {burn} by mistake. The people screamed and ran away.
        * One summer {he} went down to the fair. It was dusty there. {He} sneezed and {burn}. "Go away!" everyone
          shouted.
        * When {he} visited the village, {he} wanted to be polite. But {he} sneezed and {burn}, and after that all the
          doors were locked.

        ~ "I am sorry," said {hero}, but nobody heard {him}.
        ~ {hero} flew home and cried hot tears.
        ~ "I wish I had no fire at all," {he} said to {himself}.

        * Only a {pal_child} named {pal} was not afraid. {Pal_he} left a note at the cave. It said, "I think you are
          nice."
        * There was just one {pal_child}, {pal}, who had seen how sad the dragon looked, and {pal_he} did not forget
          it.
        * One {pal_child} in the village felt sorry for {him}. {Pal_his} name was {pal}.

        ---

        * Then came the hardest winter of all. One night, {cold}. {need}.
        * In the middle of winter, there was trouble. One dark day, {cold}. {need}.
        * Winter came, and it was a bad one. One evening, {cold}. {need}.

        * "I know who can help us," said {pal}. "The dragon!" said the people. "Never!" But {pal} climbed up to
          the cave and asked {hero} to come.
        * {pal} did not wait. {Pal_he} climbed up the mountain through the wind and knocked on the rock. "{hero},
          please come," {pal_he} called. "We need your fire."
        * "We need {hero}," said {pal}. Nobody else dared to go. So {pal} took a lamp, climbed up to the cave,
          and asked {him} to come.

        ~ {hero} could not believe it. "You want me to come? With my fire?" "Because of your fire," said {pal}.
        ~ "What if I burn something again?" asked {hero}. "Blow gently," said {pal}. "I will stay beside you."
        ~ {hero} was afraid of doing something wrong. But {pal} took {his} paw, and together they went down.

        * {hero} {deed}.
        * Very carefully, {hero} {deed}.
        * All night long they worked. {pal} stayed close beside {him}, and {hero} {deed}.

        --?

        * "Hooray for {hero}!" cried the people, and they were not afraid anymore.
        * One after another, the people came out. "We were wrong about you," they said.
        * Nobody talked about {what} anymore. "Forgive us," said the people. "You are a good dragon."

        ~ To say thank you, {thanks}.
        ~ The next day, {thanks}, and all the children wanted a ride.
        ~ In the morning, {thanks}. {hero} was so happy that {he} almost sneezed.

        * And when {hero} did have to sneeze, {he} turned {his} head to the sky, and everyone clapped.
        * From then on {hero} came down every day, and {pal} was {his} best friend.
        * The thing that had made {him} lonely was the very thing that brought {him} friends.
        * And {hero} was glad that {he} had fire.
        """,
)

SNOW = Plot(
    name="the snow friend",
    cast="hero: child, pal: child, adult: elder",
    openers="""
        * One winter morning, a {child} named {hero} woke up, and everything was white.
        * One winter morning, a little {child} named {hero} saw big flakes falling past the window.
        """,
    tables=(
        """
        nose | hat | arms
        crooked carrot | old straw hat | two long sticks
        pine cone | blue pot | two brooms
        round potato | tall black hat | two thin branches
        red apple | basket | two wooden spoons
        """,
        "snowy \n Mr. Frost \n Snowball \n Captain Cold \n Old Snowy \n Old Chilly",
    ),
    text="""
        * {hero} had waited for snow all year long, and at last it was here.
        * All winter {hero} had wished for snow. Every evening {he} had looked at the sky, and now it was here.
        * It had snowed all night, and the whole garden was soft and deep. It was just what {hero} had wished for.

        * {He} called {his} friend {pal}, and they rolled one big ball, one middle ball, and one small ball.
        * {pal} from next door was already outside. "Let's build somebody!" said {pal}. They rolled the snow until
          their hands were red.
        * {hero} and {his} friend {pal} put on their boots and ran out. They rolled three fat balls and set them on
          top of each other.

        * For a nose they took {a_nose}, and for arms they used {arms}. {adult} gave them {a_hat}. "We will call you
          {snowy}," said {hero}.
        * {pal} found {a_nose} for the nose and {arms} for the arms. {hero} put {a_hat} on top. They named their new
          friend {snowy}.
        * Soon there was a fine fat snowman with {a_nose} for a nose, {arms} for arms, and {a_hat}. "Hello, {snowy},"
          they said.

        ~ Every day after that, they went out to visit {snowy}. They told the snowman jokes, and they danced around in
          a ring.
        ~ All week they played near {snowy}. {snowy} was a very good listener.
        ~ The snowman stood in the garden day and night, and each morning {hero} waved from the window.

        ---

        * But then the wind turned warm. Drip, drip, drip, it went from the roof. {snowy} was getting thinner.
        * One day the sun was hot, and the snow began to melt. First {snowy} lost one arm, and then the other.
        * After two weeks the air smelled of spring. The snowman began to lean, and little streams ran through the
          grass.

        ~ "We have to help!" cried {hero}. They held up an umbrella to keep the sun away. It did not help.
        ~ {hero} and {pal} ran for buckets. They carried the last snow from behind the shed, but the sun was stronger.
        ~ "Don't go!" said {hero}. {pal} piled up snow with {pal_his} hands, but it only ran through {pal_his}
          fingers.

        * The next morning there was just a puddle, and in the puddle lay the {nose}. {hero} began to cry.
        * In the end nothing was left but a wet spot with the {hat} lying in it. "Our friend is gone," said {hero}.
        * When they came out the next day, {snowy} was gone. {hero} picked up the {hat} and held it tightly.

        --?

        * {adult} came out and looked at the puddle. "Do you see where the water goes?" asked {adult}. "It goes down
          to the roots. The flowers will drink it."
        * {adult} put an arm around {him}. "The water is not lost," said {adult}. "It goes up into the clouds, and one
          day it comes down again as snow."
        * "Where did our snowman go?" asked {pal}. "Into the stream," said {adult}, "and then into the sea, and then
          up into the sky. And next winter, back to you."

        ~ {hero} wiped {his} nose. "Then it is only a long trip," {he} said.
        ~ {hero} thought about that. "So I don't have to say goodbye," {he} said. "I can say see you soon."
        ~ "Really?" asked {hero}. "Really," said {adult}.

        --?

        * In April, bright yellow flowers grew on the very same spot. "Good morning, {snowy}," said {hero}.
        * They put the {hat} in the shed and kept it there all summer. And when the first flakes fell again, {hero}
          and {pal} were ready.
        * The next winter, a snowflake landed on {hero}'s nose. "Welcome back!" {he} shouted, and {he} ran to get
          {pal}.
        * They saved the {hat} for next year. Good friends come back.
        """,
)

FLY = Plot(
    name="learning to fly",
    cast="hero: animal, pal: animal",
    openers="""
        * There was once a little {species} named {hero} who had never left the nest.
        * Long ago, at the top of a tall pine tree, a little {species} named {hero} came out of an egg.
        """,
    tables=(
        """
        species | den
        sparrow | in a nest in the old oak tree
        robin | in a nest above a garden
        swallow | in a nest under the roof of a barn
        wren | in a nest at the top of a pine tree
        """,
        "friend \n mouse \n lizard \n chipmunk \n hedgehog",
        """
        danger | act
        A hungry cat was creeping through the grass, right behind {pal} |
            flew down in front of the cat's nose, so close that the cat jumped back, and {pal} slipped into a hole
        The brook had grown after the rain, and {pal} was floating away on a big leaf |
            flew down, took the stem of the leaf in {his} beak, and pulled it to the shore
        A heavy branch cracked, and {pal} was playing right under it |
            shot down like an arrow and cried, "Run!" {pal} ran, and the branch fell where {pal_he} had been
        The farmer's big wagon came rolling along, and {pal} was asleep in the middle of the road |
            flew down and called and called until {pal} woke up and jumped aside
        """,
    ),
    text="""
        * All of {his} brothers and sisters could fly. {hero} wanted to fly as well, but {he} was afraid of falling.
        * {hero} wished {he} could fly. {His} wings were strong enough, but {his} heart was not.
        * One by one, the other young birds had left the nest. Only {hero} was still sitting in it.

        * "Just jump," said {his} brother. "The air will hold you." {hero} looked down. "It looks empty to me," {he}
          said.
        * "It is easy," called {his} sister from the next tree. {hero} put one foot over the edge and pulled it back
          again.
        * Every morning {his} mother said, "Maybe today?" And every morning {hero} said, "Maybe tomorrow."

        ~ Once {he} flapped {his} wings a little, but then the wind shook the nest, and {he} sat down at once.
        ~ {He} counted, "One, two, two and a half." But {he} never got to three.
        ~ {He} tried it with {his} eyes shut. That was even worse.

        * {hero} had one friend, {a_friend} named {pal}, who lived down below. "I can't fly either," said {pal}, "and
          I like you the way you are."
        * Down on the ground lived {pal} the {friend}. {pal} often told {him} stories from below, and {hero} told
          {pal_him} what {he} saw from above.
        * {His} best friend was {pal}, a small {friend} down on the ground. They called to each other all day long.

        ---

        * One afternoon, {hero} saw something from the nest. {danger}!
        * Then, one day, {hero} saw that {pal} was in trouble. {danger}!
        * One day {he} looked down, and {his} feathers stood up. {danger}!

        ~ "{pal}, look out!" {he} cried. But {pal} was too far away to hear {him}.
        ~ {hero} called for {his} mother, but {his} mother was not there. Nobody was there.
        ~ There was no time to get help.

        * {hero} did not think about falling. {He} did not think at all. {He} {act}.
        * {hero} did not stop to think this time. {He} {act}.
        * Before {he} knew it, {he} was in the air. {He} {act}.

        --?

        * {pal} was safe. "You saved me!" said {pal}, all out of breath. "And {hero}, you flew!"
        * When it was over, they both sat there and shook. Then {pal} looked up. "Do you know what you just did?"
          asked {pal}. "You flew!"
        * "Thank you," said {pal} in a tiny voice. "But wait. Did you just fly?"

        * {hero} looked at {his} wings. "I did," {he} said slowly. "I really did!"
        * "Oh!" said {hero}. {He} looked up at the nest, so far above. {He} had come all that way through the empty
          air.
        * {hero} opened {his} beak, but for a moment {he} did not know what to say. {He} had flown!

        ~ Then {he} flew up again, around the tree three times, just because it was so nice.
        ~ {He} spread {his} wings once more. This time {he} felt it. The air was not empty. It held {him}.
        ~ All {his} brothers and sisters cheered when {he} came flying home.

        * {His} mother was waiting at the nest. "I always knew you could," said {his} mother.
        * That evening {hero} told {pal} what the whole valley looked like from up in the clouds.
        * Sometimes you are braver for a friend than you are for yourself.
        * After that, nobody could keep {hero} in the nest, except at bedtime.
        """,
)

BOAT = Plot(
    name="the toy boat",
    cast="hero: child, pal: child",
    openers="""
        * One sunny morning, a {child} named {hero} sat on the grass and made something new.
        * Long ago, in a valley with a winding stream, there lived a {child} named {hero}.
        """,
    tables=(
        """
        made | sail | boat_name
        a piece of bark | a big green leaf | Sea Star
        a block of wood | a bit of white cloth | Brave Duck
        half a walnut shell | a scrap of paper | Little Wave
        an old wooden shoe | a clean handkerchief | Silver Fish
        """,
        """
        stop | way
        a ring of reeds | it was on the far side, where the water was too deep to walk
        a big rock in the middle of the stream | the water around it was fast and cold
        the old mill | it turned around and around in a place no arm could reach
        """,
        """
        trick
        tied {pal_his} jump rope to a stick with a hook, caught the sail, and pulled the boat in
        threw small stones behind the boat, so that the waves pushed it closer and closer
        found a long branch, and while {hero} held {pal_him} by the belt, {pal_he} reached out and pulled the boat in
        took a butterfly net with a very long handle and scooped the boat out of the water
        """,
    ),
    text="""
        * {hero} made a boat out of {made}, with {sail} for a sail. {He} called it the {boat_name}.
        * Out of {made} {hero} built a little boat. The sail was {sail}, and the boat's name was the {boat_name}.
        * {He} worked all morning on a boat. It was {made} with {sail} on top, and {he} named it the {boat_name}.

        ~ {He} wanted to see it sail like a real ship.
        ~ "One day you will sail around the world," {he} told it.
        ~ How {he} wished that {he} were small enough to sail in it!

        * {hero} carried it to the stream and put it in the water. The {boat_name} rocked, and then it began to sail.
        * Down at the stream, {he} set it on the water and gave it a push. It did not sink. It sailed!
        * At the stream {he} knelt down and let it go. The little boat turned once and sailed off like a swan.

        * But the water was fast that day. "Wait!" cried {hero}. {He} ran along the bank, but the boat was faster.
        * Then the wind filled the sail. Faster and faster went the {boat_name}, around the bend and out of sight.
        * {hero} laughed and ran beside it. But soon {he} could not keep up. The boat went under a bridge and was
          gone.

        ---

        ~ {He} ran and ran until {he} could run no more. There was no boat to be seen.
        ~ {hero} followed the stream past the last house. {He} had never gone so far alone.
        ~ {hero} ran through mud and tall grass. At last {he} had to stop and catch {his} breath.

        * A {pal_child} was sitting on the bank with both feet in the water. "Are you looking for a ship?" asked the
          {pal_child}. "It went that way. My name is {pal}."
        * Then {he} met a {pal_child} with a fishing rod. "Have you seen a little boat?" asked {hero}. "I have," said
          the {pal_child}, whose name was {pal}. "Come, I will show you."
        * "Did you lose a ship?" called a voice. A {pal_child} named {pal} stood in the grass and pointed down the
          stream.

        * They found the boat near {stop}, but {way}.
        * There it was, near {stop}! But oh, {way}.
        * {hero} and {pal} ran along the bank together. The boat had been caught by {stop}, and {way}.

        * "I will never get it," said {hero}. But {pal} had an idea. {Pal_he} {trick}.
        * {hero} tried to reach it and almost fell in. "Wait, I know a trick," said {pal}. {Pal_he} {trick}.
        * They sat down to think. Suddenly {pal} jumped up. {Pal_he} {trick}.

        --?

        ~ "You did it!" cried {hero}, and {he} held the wet little boat in {his} arms.
        ~ A moment later the {boat_name} was safe. {hero} shook the water from the sail and beamed.
        ~ "Welcome home, {boat_name}," said {hero}, and they both laughed.

        ~ "That is the best boat I have ever seen," said {pal}. "I wish I had one." {hero} smiled. "Then let's make
          one for you," {he} said.
        ~ {pal} looked at the boat and did not want to give it back. "Do you know how to make one?" asked {pal}. "I
          will show you," said {hero}.
        ~ "Do you live here?" asked {hero}. "Just over the hill," said {pal}. And to think that they had never met
          before!

        * The next day they built a second boat, and the two boats sailed down the stream side by side.
        * {hero} had gone out to sail a boat, and {he} came home with a friend.
        * After that they tied a long string to the {boat_name}, and the two of them played by the stream all summer.
        * "My boat did not sail around the world," {hero} said that night, "but it sailed to a friend."
        """,
)

NUTS = Plot(
    name="the winter store",
    cast="hero: animal, pal: animal",
    openers="""
        * One autumn morning, a little {species} named {hero} woke up with a plan.
        * Long ago, in a deep forest, there lived a little {species} named {hero}.
        """,
    tables=(
        """
        species | den | food
        squirrel | high up in a beech tree | nuts
        chipmunk | under an old tree stump | acorns
        mouse | under the roots of a hazel bush | seeds
        hamster | under the wall of an old garden | beans
        """,
        "friend \n bird \n hedgehog \n mole \n rabbit",
        """
        bed
        nest of straw
        windy little hole
        bed of leaves
        hollow log
        """,
        """
        why
        hurt {pal_his} foot in autumn and could not look for food
        taken care of {pal_his} sick mother all autumn
        lost all of {pal_his} food when the stream rose
        given {pal_his} food to some hungry babies
        """,
    ),
    text="""
        * Winter was coming, and {hero} wanted to have more {food} than anyone else.
        * All autumn {hero} gathered {food}. {He} wished for a heap of {food} that reached up to the ceiling.
        * {hero} was a hard worker. From morning to night, {he} carried {food} home.

        ~ "Mine, mine, mine," {he} sang as {he} worked. Soon {his} home was so full that {he} could hardly turn
          around.
        ~ {He} put {food} under the bed, {food} on the shelf, and {food} inside {his} shoes.
        ~ {He} counted them every evening. There were always more, and still {he} thought it was not enough.

        * Then the snow came, and one evening there was a knock at the door. It was {pal} the {friend}, and {pal_he}
          was shaking with cold.
        * The first snow fell, and it got very cold. "Knock, knock," went the door. Outside stood {pal} the {friend},
          as thin as a stick.
        * When the woods were white, {pal} the {friend} came by. {Pal_his} nose was blue.

        * "Could you give me a little food?" asked {pal}. {Pal_he} had {why}.
        * {pal} had {why}. "I am so hungry," {pal_he} said. "May I have just a few {food}?"
        * "I have nothing to eat," said {pal}. {Pal_he} had {why}.

        * "I need everything for myself," said {hero}, and {he} shut the door.
        * "You should have worked harder," said {hero}. {pal} turned around and went off into the snow.
        * {hero} looked at {his} {food}. "No," {he} said. "They are all mine." And the door went shut.

        ---

        * {hero} sat down to eat. But the {food} did not taste good. The house was full, and yet it felt empty.
        * That night {hero} could not sleep. {He} thought of {pal}, out there in the cold.
        * {hero} ate and ate. But there was nobody to talk to, and the only sound was {his} own chewing.

        ~ "What am I going to do with all of this?" {he} asked {himself}. "I can't eat it in three winters."
        ~ {He} remembered that {pal} had once told {him} jokes when {he} was ill. {He} began to feel ashamed.
        ~ {He} looked at the heap, and then at the dark window. {His} face grew hot.

        * Then {he} felt ashamed. {He} filled a sack, pulled on {his} boots, and ran out into the storm. Far away {he}
          saw small tracks in the snow.
        * {He} could not bear it. At first light, {he} packed a big bag and followed {pal}'s footprints through the
          snow.
        * All at once {he} jumped up, put as many {food} into a bag as {he} could carry, and went out into the night.

        * {He} found {pal} curled up in {a_bed}. "I was wrong," said {hero}. "Please forgive me. Come home with me."
        * {pal} was lying in {a_bed}, cold and still. "Wake up," said {hero}. "I have brought you supper." {pal}
          opened one eye and smiled.
        * There was {pal}, in {a_bed}. "I am sorry," said {hero}. "I have too much, and you have too little. That is
          easy to mend."

        --?

        * Soon they sat by the warm stove, and {pal} ate until {pal_his} tummy was round.
        * They went back together. {pal} ate and got warm, and then {pal_he} began to tell one funny story after
          another.
        * {hero} made a soft bed by the fire, and they ate together and talked until late.

        ~ And how strange! Now the {food} tasted better than ever before.
        ~ {hero} laughed as {he} had not laughed for weeks. {He} took a bite. It was delicious.
        ~ "Is there enough for two?" asked {pal}. "For two and for ten," said {hero}.

        * The next day they put up a sign at the door. It said, "If you are hungry, come in."
        * All winter the little house was full of guests, and when spring came, there was not one of the {food} left.
          But {hero} had never been so rich.
        * {hero} learned that winter that a full heart is better than a full shelf.
        * And in spring, when they went out to gather food again, they did it together.
        """,
)

PLOTS = (
    LOST_TOY,
    KITE,
    LEARN,
    SHARE,
    STORM,
    TOO_SMALL,
    SEED,
    BROKEN,
    NEW_CHILD,
    LOST_BABY,
    SURPRISE,
    CAVE,
    RACE,
    BORROW,
    BRIDGE,
    STAR,
    MONSTER,
    BIRD,
    ROOSTER,
    DRAGON,
    SNOW,
    FLY,
    BOAT,
    NUTS,
)
