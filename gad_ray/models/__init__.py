"""Models: finding and loading them, and rendering chats for them."""
