"""Shapes, gradients and how published weights are laid in."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from pipeline.model.taxonomy import LEAVES  # noqa: E402
from pipeline.networks.backbones import BackboneName, Encoder, FeatureExtractor, load_pretrained  # noqa: E402
from pipeline.networks.cenet import CONTEXT_SCALE, CENet, fit_float16  # noqa: E402
from pipeline.networks.classifiers import LeukocyteClassifier  # noqa: E402
from pipeline.networks.light_unet import CLASSES, LightUNet  # noqa: E402
from pipeline.training.recipe.pretrained import imagenet_weights  # noqa: E402


def _rgb(count: int, height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, height, width, 3), dtype=torch.uint8)


def _parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("encoder", [BackboneName.EFFICIENTNET_LITE0, BackboneName.MOBILENET_V2])
def test_unet_gives_a_logit_per_pixel_and_every_parameter_learns(encoder: BackboneName) -> None:
    network = LightUNet(encoder)
    logits = network(_rgb(2, 48, 32))
    assert logits.shape == (2, CLASSES, 48, 32)
    assert logits.dtype == torch.float32
    logits[:, 1].logsumexp(dim=(1, 2)).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    assert _parameters(network) < 6_000_000


@pytest.mark.parametrize("backbone", list(BackboneName))
def test_classifier_gives_a_logit_per_leaf_and_every_parameter_learns(backbone: BackboneName) -> None:
    network = LeukocyteClassifier(backbone)
    logits = network(_rgb(3, 64, 32))
    assert logits.shape == (3, len(LEAVES))
    logits.logsumexp(dim=1).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_ensemble_is_small() -> None:
    assert sum(_parameters(LeukocyteClassifier(name)) for name in BackboneName) < 12_000_000


def test_encoder_gives_maps_at_strides_2_4_8_16() -> None:
    encoder = Encoder(BackboneName.EFFICIENTNET_LITE0)
    shapes = [tuple(maps.shape) for maps in encoder(_rgb(1, 64, 96))]
    assert shapes == [(1, 16, 32, 48), (1, 24, 16, 24), (1, 40, 8, 12), (1, 112, 4, 6)]


@pytest.mark.parametrize("name", list(BackboneName))
def test_published_weights_fill_the_whole_backbone(name: BackboneName) -> None:
    network = FeatureExtractor(name)
    published = imagenet_weights(name)
    assert load_pretrained(network, published) == len(network.state_dict())
    first = next(tensor for key, tensor in published.items() if tensor.ndim == 4)
    assert torch.equal(next(network.stem.parameters()), first)


def test_pretrained_features_separate_pictures_better_than_chance_weights() -> None:
    """Weights in the wrong order would leave maps that are blown up or dead."""
    network = FeatureExtractor(BackboneName.EFFICIENTNET_LITE0)
    load_pretrained(network, imagenet_weights(BackboneName.EFFICIENTNET_LITE0))
    network.eval()
    with torch.inference_mode():
        features = network(_rgb(2, 64, 64))
    assert 0.05 < float(features.mean()) < 3.0
    assert 0.02 < float((features > 0).float().mean()) < 0.98


def test_weights_of_another_network_are_refused() -> None:
    published = imagenet_weights(BackboneName.MOBILENET_V2)
    with pytest.raises(ValueError, match="shape"):
        load_pretrained(Encoder(BackboneName.EFFICIENTNET_LITE0), published)


def test_white_and_black_are_normalised_inside() -> None:
    network = FeatureExtractor(BackboneName.EFFICIENTNET_LITE0)
    white = torch.full((1, 32, 32, 3), 255, dtype=torch.uint8)
    assert torch.allclose(network.input(white), torch.ones(1, 3, 32, 32))
    assert torch.allclose(network.input(torch.zeros_like(white)), -torch.ones(1, 3, 32, 32))


def test_a_cenet_that_float16_holds_says_the_same() -> None:
    torch.manual_seed(8)
    network = CENet(8)
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            if name.startswith(("atrous", "pooling")):
                tensor.copy_(torch.randn_like(tensor))
        pictures = torch.randint(0, 256, (2, 96, 96, 3), dtype=torch.uint8)
        network.train()(pictures)  # so that norms know what they see
        network.eval()
        expected, before = network(pictures), _context_of(network, pictures)
        fit_float16(network)
        given, after = network(pictures), _context_of(network, pictures)
    assert torch.allclose(given, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(after * CONTEXT_SCALE, before)
    assert expected.std() > 0.01


def _context_of(network: CENet, pictures: torch.Tensor) -> torch.Tensor:
    return network.pooling(network.atrous(network.encoder(pictures)[3]))
