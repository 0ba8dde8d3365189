"""Convolutions by Winograd's algorithm: what torch's give, whatever the size."""

import pytest
import torch
from torch import nn

from mppe_ros.inference import Room
from mppe_ros.winograd import Winograd

# Rows and columns that do and don't fill tiles of 4x4, in one band of them and in more.
SIZES = [(1, 1), (4, 8), (5, 6), (13, 17), (200, 250)]


def convolution(inputs: int, outputs: int) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(inputs, outputs, 3, padding=1).requires_grad_(False)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())


@pytest.mark.parametrize(
    ("precision", "least", "most"), [(torch.float32, 0, 1e-5), (torch.bfloat16, 1e-4, 0.05)]
)
def test_results_are_those_of_the_convolution(
    precision: torch.dtype, least: float, most: float
) -> None:
    plain = convolution(12, 20)
    ours = Winograd(plain, precision, Room())
    # One after the other with the same memory: nothing of a size may be left in the next one.
    for height, width in [*SIZES, *reversed(SIZES)]:
        for count in (1, 2):
            x = torch.randn(count, 12, height, width)
            for same in (x, x.contiguous(memory_format=torch.channels_last)):
                found, expected = ours(same), plain(same)
                assert found.dtype == precision and found.shape == expected.shape
                assert least <= relative_error(found.float(), expected) < most


@pytest.mark.parametrize(("precision", "most"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_a_layer_behind_it_is_computed_with_it(precision: torch.dtype, most: float) -> None:
    plain, then = convolution(12, 20), nn.Linear(20, 3).requires_grad_(False)
    ours = Winograd(plain, precision, Room(), then)
    for height, width in [*SIZES, *reversed(SIZES)]:
        x = torch.randn(2, 12, height, width)
        found, expected = ours(x), then(plain(x).relu().permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        assert found.dtype == torch.float32 and found.shape == expected.shape
        assert relative_error(found, expected) < most


def test_convolutions_of_one_network_share_their_room() -> None:
    first, second, room = convolution(3, 8), convolution(8, 3), Room()
    both = nn.Sequential(*(Winograd(one, torch.float32, room) for one in (first, second)))
    x = torch.randn(1, 3, 10, 11)
    expected = second(first(x))
    torch.testing.assert_close(both(x), expected, atol=1e-4, rtol=0)
    with torch.inference_mode():  # what was made in it could not be written to without
        both(torch.randn(1, 3, 30, 30))
    torch.testing.assert_close(both(x), expected, atol=1e-4, rtol=0)


def test_other_convolutions_are_refused() -> None:
    others = [nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 1)]
    others += [nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.Conv2d(4, 4, 3, padding=1, bias=False)]
    others += [nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), convolution(4, 4)]
    others[-1].dilation = (2, 2)
    for other in others:
        with pytest.raises(ValueError, match="not for Conv2d"):
            Winograd(other, torch.float32, Room())
