import numpy as np
import torch

from gad_ray.learners.collective import LocalCollective, own_share


class Rank:
    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size


def test_shares_hold_every_item_once():
    items = list("abcdefg")
    shares = [own_share(items, Rank(rank, 3)) for rank in range(3)]  # type: ignore[arg-type]
    assert shares == [["a", "d", "g"], ["b", "e"], ["c", "f"]]


def test_a_group_of_one_has_everything_and_changes_nothing():
    group, tensor, array = LocalCollective(), torch.tensor([1.0, 2.0]), np.ones(3, dtype=np.float32)
    group.add_up([tensor])
    assert tensor.tolist() == [1.0, 2.0]
    assert [part.tolist() for part in group.gather(array)] == [[1.0, 1.0, 1.0]]
    assert own_share([1, 2, 3], group) == [1, 2, 3]
