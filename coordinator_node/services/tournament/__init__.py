"""Tournament rounds as rows: what clients ask for and give. The predict workers call the models, in `predict.rounds`.

A round is a slot for each of its feature rows, each with an input of its own, and the calls of its first slot, which
name the models that are asked. A prediction of a round is due for scoring once the ground truth of its row is given.
"""
