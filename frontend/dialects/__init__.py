"""One file per peer whose HTTP surface we speak."""
