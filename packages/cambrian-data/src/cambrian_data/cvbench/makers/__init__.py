"""The four makers, pure functions picture -> candidates. None depends on the order of the annotations."""

from cambrian_data.cvbench.makers.count import count_candidates
from cambrian_data.cvbench.makers.depth import depth_candidates
from cambrian_data.cvbench.makers.distance import distance_candidates
from cambrian_data.cvbench.makers.relation import relation_candidates

__all__ = ["count_candidates", "depth_candidates", "distance_candidates", "relation_candidates"]
