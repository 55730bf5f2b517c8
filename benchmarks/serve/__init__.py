"""The critic's endpoint under load, beside what users of other systems have: peers, swaps with lost replicas, overload."""
