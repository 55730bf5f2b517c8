"""Drawing the policy's responses: one protocol, two engines. No ray import."""
