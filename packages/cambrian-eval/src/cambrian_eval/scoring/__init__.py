"""Rules that read a reply. They abstain rather than invent, and the rule's name is recorded on every score."""
