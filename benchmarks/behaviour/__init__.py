"""Does a clean score mean clean behaviour?

Features over the range of the predicted clean score are brought to one KL, and the model writes on from
neutral prompts while each of them is pushed at every token. What becomes of the text is compared with the
scores: ``python -m cleansteer.benchmarks.behaviour RUN``.
"""
