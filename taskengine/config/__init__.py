"""Settings and where they come from, the policy, and the door to the devices of [hardware]."""
