"""Operations of the network: torch only."""
