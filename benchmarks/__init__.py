"""Side by side with peers: each module is one command, and prints ratios measured in one run."""
