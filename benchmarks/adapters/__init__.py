"""Which features are the better bargain to train on? Adapters on pools of features, by the same rule of
relevance inside each pool, beside LoRA and IA3: what they gain on a topic that the model has not seen,
against what they change elsewhere, over the whole range of strengths. ``cleansteer benchmark adapters
SETTING``.
"""
