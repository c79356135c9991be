"""Compressors: shapes, starting points, what each output token sees, and the options that must be refused."""

import pytest
import torch
from conftest import teacher_config

from fcot_vl.model import COMPRESSORS, FCoTVLConfig, build_compressor

RATIOS = (1, 2, 4, 8, 16)


def config(ratio: int, compressor: str = "conv") -> FCoTVLConfig:
    return FCoTVLConfig.from_teacher(teacher_config(), ratio, compressor)


@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize("ratio", RATIOS)
def test_output_has_a_ratio_th_of_the_tokens(ratio: int, compressor: str) -> None:
    out = build_compressor(config(ratio, compressor))(torch.randn(3, 16, 128))
    assert out.shape == (3, 16 // ratio, 128)


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_ratio_1_is_the_identity_without_parameters(compressor: str) -> None:
    identity = build_compressor(config(1, compressor))
    x = torch.randn(2, 16, 128)
    assert torch.equal(identity(x), x)
    assert not list(identity.parameters())


@pytest.mark.parametrize("ratio", RATIOS[1:])
def test_conv_starts_as_mean_pooling(ratio: int) -> None:
    x = torch.randn(3, 16, 128)
    conv, pooling = build_compressor(config(ratio, "conv")), build_compressor(config(ratio, "pooling"))
    torch.testing.assert_close(conv(x), pooling(x), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(pooling(x), x.reshape(3, 16 // ratio, ratio, 128).mean(2), rtol=0, atol=0)


def test_conv_weight_is_exact_and_dense() -> None:
    conv = build_compressor(config(4))
    expected = torch.zeros(128, 128, 4)
    expected[torch.arange(128), torch.arange(128)] = 0.25
    assert torch.equal(conv.weight, expected)
    assert torch.equal(conv.bias, torch.zeros(128))


@pytest.mark.parametrize("compressor", ["conv", "pooling"])
def test_an_output_token_sees_its_own_run_and_no_other(compressor: str) -> None:
    module = build_compressor(config(4, compressor))
    x = torch.randn(1, 16, 128)
    changed = x.clone()
    changed[:, 4:8] += 1.0
    moved = (module(x) - module(changed)).abs().amax(dim=(0, 2)) > 1e-3
    assert moved.tolist() == [False, True, False, False]


def test_conv_tells_the_tokens_of_a_run_apart_once_trained() -> None:
    conv, x = build_compressor(config(2)), torch.randn(1, 16, 128)
    with torch.no_grad():
        conv.weight.normal_()
    swapped = x.reshape(1, 8, 2, 128).flip(2).reshape(1, 16, 128)
    assert not torch.allclose(conv(x), conv(swapped), atol=1e-2)


def test_qformer_queries_see_the_whole_tile_and_differ() -> None:
    module = build_compressor(config(4, "qformer"))
    assert module.queries.shape == (4, 128)
    x = torch.randn(1, 16, 128)
    changed = x.clone()
    changed[:, 15] += 1.0 * torch.randn(128)
    assert ((module(x) - module(changed)).abs().amax(dim=(0, 2)) > 0).all()
    assert not torch.allclose(module(x)[0, 0], module(x)[0, 1])


@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_tiles_do_not_mix(compressor: str) -> None:
    module = build_compressor(config(2, compressor))
    x = torch.randn(3, 16, 128)
    torch.testing.assert_close(module(x)[1:2], module(x[1:2]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compress_ratio": 3}, r"compress_ratio must be one of \(1, 2, 4, 8, 16\), got 3"),
        ({"compress_ratio": 2, "compressor": "magic"}, "compressor must be one of .*'conv'.* got 'magic'"),
        ({"compress_ratio": 2, "visual_positions": "odd"}, "visual_positions must be one of .* got 'odd'"),
    ],
)
def test_unknown_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FCoTVLConfig.from_teacher(teacher_config(), **options)


def test_a_ratio_that_does_not_divide_a_tile_is_refused() -> None:
    assert FCoTVLConfig.from_teacher(teacher_config(tile=84), 1).tokens_per_tile == 9
    with pytest.raises(ValueError, match="compress_ratio 2 does not divide the 9 visual tokens of a tile"):
        FCoTVLConfig.from_teacher(teacher_config(tile=84), 2)


def test_tokens_per_tile_follow_the_one_dial() -> None:
    assert [config(ratio).image_seq_length for ratio in RATIOS] == [16, 8, 4, 2, 1]
    assert FCoTVLConfig(compress_ratio=4).image_seq_length == 64  # InternVL's own sizes: 256 tokens a tile
    assert FCoTVLConfig(compress_ratio=2, image_seq_length=7).image_seq_length == 128


def test_a_student_is_no_teacher() -> None:
    with pytest.raises(ValueError, match="itself a student with compress_ratio 2"):
        FCoTVLConfig.from_teacher(config(2), 4)
    with pytest.raises(ValueError, match="must be of model_type 'internvl'"):
        FCoTVLConfig.from_teacher(teacher_config().text_config, 2)
