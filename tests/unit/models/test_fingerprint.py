import dataclasses

import torch

from gad_ray.batch import Fingerprint
from gad_ray.models.fingerprint import hash_tensors, hash_text

PARTS = Fingerprint(weights="a", head="b", template="c", tokenizer="d", pooling="e", dtype="f")


def test_every_part_changes_the_digest():
    digests = {
        dataclasses.replace(PARTS, **{field.name: "other"}).digest for field in dataclasses.fields(PARTS)
    }
    assert len(digests | {PARTS.digest}) == 7


def test_parts_that_change_places_change_the_digest():
    assert dataclasses.replace(PARTS, weights="b", head="a").digest != PARTS.digest


def test_the_order_of_tensors_does_not_matter_and_one_bit_does():
    weights = {"x": torch.ones(2, 3), "y": torch.zeros(())}
    assert hash_tensors(dict(reversed(weights.items()))) == hash_tensors(weights)
    flipped = {**weights, "x": weights["x"].clone()}
    flipped["x"].view(torch.int32)[1, 2] ^= 1
    assert hash_tensors(flipped) != hash_tensors(weights)


def test_names_types_and_shapes_matter_beside_the_bytes():
    zeros = torch.zeros(4)
    variants = [
        {"x": zeros},
        {"y": zeros},
        {"x": zeros.reshape(2, 2)},
        {"x": zeros.view(torch.int32)},
        {"x": zeros[:2], "y": zeros[2:]},
    ]
    assert len({hash_tensors(variant) for variant in variants}) == len(variants)


def test_bfloat16_and_strided_tensors_are_hashed_by_their_values():
    tensor = torch.arange(6, dtype=torch.bfloat16).reshape(2, 3)
    assert hash_tensors({"x": tensor.T.contiguous().T}) == hash_tensors({"x": tensor})


def test_a_texts_hash_is_that_of_its_utf8_bytes():
    # sha256sum of no bytes.
    assert hash_text("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
