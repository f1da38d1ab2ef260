"""The small model: shapes, size, agreement with transformers' SAM, and resumable training."""

from pathlib import Path

import numpy as np
import pytest
import torch

from modeling.tiny import IMAGE_SIZE, TinySam, load_tiny
from training.config import Config, Stage
from training.dataset import SceneDataset, batches
from training.forward import decode, decode_directly, embed_points
from training.samples import MaskedImage
from training.scenes import compose
from training.train import Run, save_weights


@pytest.fixture(scope="module")
def model() -> TinySam:
    torch.manual_seed(0)
    return TinySam(128).eval()


@pytest.mark.parametrize("size", [64, 128])
def test_encoder_gives_256_channels_at_stride_16(model: TinySam, size: int) -> None:
    with torch.inference_mode():
        assert model.vision_encoder(torch.randn(2, 3, size, size)).shape == (2, 256, size // 16, size // 16)


def test_model_has_at_most_12_million_parameters(model: TinySam) -> None:
    assert sum(parameter.numel() for parameter in model.parameters()) <= 12_000_000


def test_sizes_follow_the_image_size() -> None:
    model = TinySam()
    assert (model.image_size, model.embedding_size, model.low_res_size) == (
        IMAGE_SIZE,
        IMAGE_SIZE // 16,
        IMAGE_SIZE // 4,
    )


def test_image_size_off_the_stride_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 32"):
        TinySam(500)


def test_decode_agrees_with_transformers(model: TinySam) -> None:
    generator = torch.Generator().manual_seed(1)
    embeddings = torch.randn(1, 256, 8, 8, generator=generator)
    point, box = torch.tensor([[40.0, 50.0]]), torch.tensor([[10.0, 20.0, 90.0, 100.0]])
    with torch.inference_mode():
        for points, labels, boxes in ((point, [[1]], None), (None, None, box), (point, [[0]], box)):
            sparse, dense = model.prompt_encoder(
                None if points is None else points.reshape(1, 1, 1, 2),
                None if labels is None else torch.tensor([labels]),
                None if boxes is None else boxes.reshape(1, 1, 4),
                None,
            )
            theirs = model.mask_decoder(embeddings, model.image_positional_embeddings(), sparse, dense, True)
            coords = [] if points is None else [points]
            coords.append(torch.zeros(1, 2) if boxes is None else boxes.reshape(2, 2))
            kinds = ([] if labels is None else labels[0]) + ([-1] if boxes is None else [2, 3])
            ours = decode(model, embeddings, embed_points(model, torch.cat(coords)[None], torch.tensor([kinds])))
            torch.testing.assert_close(ours[0][:, 1:], theirs[0][:, 0], atol=1e-4, rtol=1e-4)
            torch.testing.assert_close(ours[1][:, 1:], theirs[1][:, 0], atol=1e-4, rtol=1e-4)


def test_direct_prompts_answer_each_by_itself(model: TinySam) -> None:
    embeddings = torch.randn(1, 256, 8, 8, generator=torch.Generator().manual_seed(1))
    clicks = torch.tensor([[[[20.0, 20.0]], [[100.0, 60.0]]]])
    with torch.inference_mode():
        both, ious = decode_directly(model, embeddings, clicks, torch.ones(1, 2, 1, dtype=torch.int64))
        second, _ = decode_directly(model, embeddings, clicks[:, 1:], torch.ones(1, 1, 1, dtype=torch.int64))
    assert both.shape == (1, 2, 4, 32, 32)
    assert ious.shape == (1, 2, 4)
    torch.testing.assert_close(both[:, 1:], second)
    assert not torch.allclose(both[:, 0], both[:, 1], atol=1e-3)


def test_saved_weights_load_strictly(model: TinySam, tmp_path: Path) -> None:
    save_weights(model, tmp_path / "tiny.safetensors")
    loaded = load_tiny(tmp_path / "tiny.safetensors", 128)
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], atol=1e-3, rtol=1e-3)
    assert not loaded.training


@pytest.fixture
def pool(tmp_path: Path) -> list[Path]:
    paths = []
    for seed in range(3):
        scene = compose((64, 80), [], [], np.random.default_rng(seed))
        paths.append(tmp_path / f"{seed}.npz")
        MaskedImage.of_masks(scene.image, scene.masks).save(paths[-1])
    return paths


def _config() -> Config:
    return Config(
        seed=1,
        learning_rate=1e-3,
        trunk_share=0.2,
        weight_decay=0.05,
        warmup_steps=1,
        gradient_norm=1.0,
        ema_decay=0.9,
        save_every=1,
        crops=0,
        scenes=3,
        pools=("scenes",),
        stage=(Stage(64, 2, 2, 0, 1), Stage(96, 2, 2, 2, 1)),
    )


def _train(run: Run, pool: list[Path]) -> None:
    for stage, first, steps in run.config.stages_from(run.step):
        dataset = SceneDataset([pool], stage.image_size, stage.objects, run.config.seed)
        for batch in batches(dataset, stage.batch, first, steps, workers=0):
            run.advance(batch, stage.rounds)


def test_resumed_training_continues_as_if_unbroken(pool: list[Path], tmp_path: Path) -> None:
    unbroken = Run.start(_config())
    _train(unbroken, pool)
    broken = Run.start(_config())
    stage = broken.config.stage[0]
    dataset = SceneDataset([pool], stage.image_size, stage.objects, broken.config.seed)
    broken.advance(next(batches(dataset, stage.batch, 0, 1, workers=0)), stage.rounds)
    broken.save(tmp_path)
    resumed = Run.start(_config())
    resumed.restore(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    _train(resumed, pool)
    assert resumed.step == unbroken.step == 2
    assert resumed.history == unbroken.history
    for name, value in unbroken.average.state_dict().items():
        torch.testing.assert_close(value, resumed.average.state_dict()[name])
    assert {path.name for path in tmp_path.iterdir()} >= {"tiny.safetensors", "curves.png", "log.csv"}


def test_dataset_item_depends_on_seed_and_index_alone(pool: list[Path]) -> None:
    first, second = (SceneDataset([pool], 64, 2, 9)[5] for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one, other)


def test_points_and_boxes_lie_on_their_targets(pool: list[Path]) -> None:
    dataset = SceneDataset([pool], 64, 4, 2)
    for index in range(10):
        _, targets, points, boxes, clicks, click_targets, click_boxes = dataset[index]
        for target, (x, y), (x0, y0, x1, y1) in zip(targets, points, boxes, strict=True):
            assert target[int(y) // 4, int(x) // 4] > 0
            assert x0 - 4 <= x <= x1 + 4
            assert y0 - 4 <= y <= y1 + 4
        for target, (x, y), (x0, y0, x1, y1) in zip(click_targets, clicks, click_boxes, strict=True):
            assert target[int(y) // 4, int(x) // 4] == 1
            assert x0 - 8 <= x <= x1 + 8
            assert y0 - 8 <= y <= y1 + 8
