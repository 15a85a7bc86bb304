"""Networks that no installed package brings, written from their papers."""
