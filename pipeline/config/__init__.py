"""In: profiles, params.yaml and plan.yaml, as people and compose wrote them.
Out: typed parameters, each checked, and the paths of all that is made.
Enters: stages alone; no other room knows of parameters.
"""
