"""The small model and its training: agreement with transformers' SAM, prompts on their targets, resumable runs."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from modeling.tiny import IMAGE_SIZE, TinySam, load_tiny
from training.config import Config
from training.dataset import PromptDataset, batches
from training.forward import decode, embed_points
from training.samples import MaskedImage
from training.train import Run, save_weights


@pytest.fixture(scope="module")
def model() -> TinySam:
    torch.manual_seed(0)
    return TinySam(128).eval()


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
    with pytest.raises(ValueError, match="multiple of 16"):
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


def test_saved_weights_load_strictly(model: TinySam, tmp_path: Path) -> None:
    save_weights(model, tmp_path / "tiny.safetensors")
    loaded = load_tiny(tmp_path / "tiny.safetensors", 128)
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], atol=1e-3, rtol=1e-3)
    assert not loaded.training


def _discs(seed: int) -> MaskedImage:
    """Two overlapping discs on noise."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 60, (64, 80, 3)).astype(np.uint8)
    masks = []
    for _ in range(2):
        disc = np.zeros((64, 80), dtype=np.uint8)
        cv2.circle(disc, (int(rng.integers(25, 55)), int(rng.integers(25, 40))), 18, 1, cv2.FILLED)
        image[disc > 0] = rng.integers(100, 255, 3)
        masks.append(disc > 0)
    return MaskedImage.of_masks(image, np.stack(masks))


@pytest.fixture
def pool(tmp_path: Path) -> list[Path]:
    paths = []
    for seed in range(3):
        paths.append(tmp_path / f"{seed}.npz")
        _discs(seed).save(paths[-1])
    return paths


def test_stored_sample_comes_back_with_its_overlapping_masks(tmp_path: Path) -> None:
    sample = _discs(5)
    sample.save(tmp_path / "sample.npz")
    loaded = MaskedImage.load(tmp_path / "sample.npz")
    for index in range(2):
        assert np.array_equal(loaded.mask(index), sample.mask(index))
    assert (loaded.mask(0) & loaded.mask(1)).any()
    assert np.abs(loaded.image.astype(int) - sample.image).mean() < 12


def _config() -> Config:
    return Config(
        seed=1,
        crops=0,
        image_size=64,
        batch=2,
        objects=2,
        rounds=2,
        steps=2,
        learning_rate=1e-3,
        encoder_share=0.5,
        weight_decay=0.05,
        warmup_steps=1,
        gradient_norm=1.0,
        ema_decay=0.9,
        save_every=1,
    )


def _start() -> Run:
    torch.manual_seed(3)
    return Run.start(_config(), TinySam(64))


def _train(run: Run, pool: list[Path], steps: int) -> None:
    config = run.config
    dataset = PromptDataset(pool, config.image_size, config.objects, config.seed)
    for batch in batches(dataset, config.batch, run.step, steps, workers=0):
        run.advance(batch)


def test_resumed_training_continues_as_if_unbroken(pool: list[Path], tmp_path: Path) -> None:
    unbroken = _start()
    _train(unbroken, pool, 2)
    broken = _start()
    _train(broken, pool, 1)
    broken.save(tmp_path)
    resumed = _start()
    resumed.restore(torch.load(tmp_path / "checkpoint.pt", weights_only=True))
    _train(resumed, pool, 1)
    assert resumed.step == unbroken.step == 2
    assert resumed.history == unbroken.history
    for name, value in unbroken.average.state_dict().items():
        torch.testing.assert_close(value, resumed.average.state_dict()[name])
    assert {path.name for path in tmp_path.iterdir()} >= {"tiny.safetensors", "curves.png", "log.csv"}


def test_training_moves_weights_and_leaves_the_statistics_of_batch_normalisation(pool: list[Path]) -> None:
    run = _start()
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    _train(run, pool, 1)
    after = run.model.state_dict()
    moved = {name for name, value in before.items() if not torch.equal(value, after[name])}
    assert any(name.startswith("vision_encoder.") for name in moved)
    assert any(name.startswith("mask_decoder.") for name in moved)
    assert not any("running" in name for name in moved)
    assert "shared_image_embedding.positional_embedding" not in moved


def test_dataset_item_depends_on_seed_and_index_alone(pool: list[Path]) -> None:
    first, second = (PromptDataset(pool, 64, 2, 9)[5] for _ in range(2))
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one, other)


def test_points_and_boxes_lie_on_their_targets(pool: list[Path]) -> None:
    dataset = PromptDataset(pool, 64, 4, 2)
    for index in range(10):
        _, targets, points, boxes = dataset[index]
        for target, (x, y), (x0, y0, x1, y1) in zip(targets, points, boxes, strict=True):
            assert target[int(y) // 4, int(x) // 4] > 0
            assert x0 - 4 <= x <= x1 + 4
            assert y0 - 4 <= y <= y1 + 4


def test_training_without_masks_says_which_steps_make_them() -> None:
    with pytest.raises(ValueError, match="python -m training assets masks"):
        PromptDataset([], 64, 2, 9)
