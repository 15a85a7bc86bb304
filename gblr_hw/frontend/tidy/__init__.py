"""The graph made shorter: batch norms folded, steps fused, idioms recognised."""
