"""Commands; heavy imports happen inside them."""
