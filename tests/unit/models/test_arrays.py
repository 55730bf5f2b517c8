import numpy as np
import pytest
import torch

from gad_ray.models.arrays import from_numpy, to_numpy

VALUES = [[1.0, -2.5, 3.0e-39], [float("inf"), -0.0, 65504.0]]


@pytest.mark.parametrize(("dtype", "name"), [(torch.float32, "float32"), (torch.bfloat16, "bfloat16")])
def test_a_tensor_survives_the_way_through_numpy_bit_for_bit(dtype: torch.dtype, name: str):
    tensor = torch.tensor(VALUES, dtype=dtype)
    back = from_numpy(to_numpy(tensor), dtype=name)
    assert back.dtype == dtype
    integers = torch.int32 if dtype is torch.float32 else torch.int16
    assert torch.equal(back.view(integers), tensor.view(integers))


def test_bfloat16_travels_as_uint16():
    assert to_numpy(torch.ones(3, dtype=torch.bfloat16)).dtype == np.uint16


def test_no_bytes_are_copied():
    tensor = torch.zeros(4)
    array = to_numpy(tensor)
    array[2] = 5.0
    assert tensor.tolist() == [0.0, 0.0, 5.0, 0.0]
    assert from_numpy(array, dtype="float32").data_ptr() == tensor.data_ptr()


@pytest.mark.filterwarnings("error")
def test_a_read_only_array_is_taken_without_a_warning():
    array = np.ones(3, dtype=np.float32)
    array.flags.writeable = False
    assert from_numpy(array, dtype="float32").tolist() == [1.0, 1.0, 1.0]


def test_a_tensor_with_gradient_and_strides_becomes_a_plain_array():
    tensor = torch.arange(6.0, requires_grad=True).reshape(2, 3).T
    assert to_numpy(tensor).tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
