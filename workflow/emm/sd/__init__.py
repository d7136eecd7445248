"""Stable Diffusion: fine-tuned on a subset and sampled (Gu et al. 2023, Appendix F).

Needs the extra `sd`. diffusers and transformers are imported inside functions alone: nothing else
waits for them.
"""

STABLE_DIFFUSION = "stable_diffusion"  # the value of model.arch
TINY = "tiny"  # the value of model.base that is built here instead of loaded
