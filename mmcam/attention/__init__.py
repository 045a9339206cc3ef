"""Explanations of transformers by their attention probabilities.

- `mmcam.attention.maths`: the papers' formulas, pure functions of attention probabilities and their gradients.
- `mmcam.attention.capture`: gets both out of any model that ends in `F.scaled_dot_product_attention`.
- `mmcam.attention.blocks`: the tokens after every block, and scores of those of an earlier one (for LeGrad).
- `mmcam.attention.chain`: which attention looks from where to where, and which tokens a score is read at.
- `mmcam.attention.methods`: the methods by name, `explain(…, method="attention_relevance")`.
"""

from mmcam.attention.methods import attention_relevance, attention_rollout, gradient_attention, legrad

__all__ = ["attention_relevance", "attention_rollout", "gradient_attention", "legrad"]
