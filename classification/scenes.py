"""The embedded classifier: which kinds of things are in a scene; its CNN is the trunk of the other embedded models."""

from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, poisson_nll_loss
from torch.utils.data import DataLoader, Dataset

from classification.task import ClassificationTask
from mmcam.checkpoint import load_model
from mmcam.errors import UserError
from mmcam.networks.scene_cnn import SceneCNN
from mmcam.pictures import Pictures, read_json
from mmcam.scenes.kinds import NAMES
from mmcam.training import Recipe
from mmcam.training.options import check_counts


class SceneClassifier(SceneCNN, PyTorchModelHubMixin, library_name="mmcam", license="apache-2.0"):
    """`SceneCNN` as a model of its own; trained on which kinds are in a picture and how many, never on where."""

    def __init__(self, channels: int = 96) -> None:
        """Make the network with random weights.

        Args:
            channels: Of the last convolution.
        """
        super().__init__(channels)


class SceneTask(ClassificationTask):
    """Explain what is in a scene with the embedded classifier."""

    def __init__(self, weights: str = "classification-scenes", layer: str = "features", top_k: int = 1) -> None:
        """Load the classifier.

        Args:
            weights: Shipped weights, a folder, or a hub id.
            layer: Name of the explained layer.
            top_k: Number of most likely kinds to explain.
        """
        model = load_model(weights, (SceneClassifier,))
        form = {"size": model.size, "crop": False, "mean": model.mean, "std": model.std}
        super().__init__(model, layer, labels=list(NAMES), top_k=top_k, **form)


class Instances(Dataset[tuple[Tensor, Tensor]]):
    """Pictures with how many things of each category they hold, out of a COCO instances file."""

    def __init__(self, pictures: Path, annotations: Path, backbone: Any, limit: int | None = None) -> None:  # noqa: ANN401
        """Read the annotations.

        Args:
            pictures: Folder of the pictures.
            annotations: `instances_*.json`.
            backbone: Says size and normalisation of the pictures.
            limit: Use the first pictures only.

        Raises:
            UserError: The file is missing or broken.
        """
        content = read_json(annotations, "images", "annotations", "categories")
        try:
            images = content["images"][:limit]
            row = {image["id"]: i for i, image in enumerate(images)}
            column = {category["id"]: i for i, category in enumerate(content["categories"])}
            self.names = tuple(category["name"] for category in content["categories"])
            self.counts = torch.zeros(len(images), len(column))
            for thing in content["annotations"]:
                if thing["image_id"] in row:
                    self.counts[row[thing["image_id"]], column[thing["category_id"]]] += 1
            self.pictures = Pictures([pictures / image["file_name"] for image in images], backbone)
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{annotations}: expected COCO's instances, images with id and file_name, categories with id and name "
                f"and annotations with image_id and category_id; got an entry that is not whole: {error}"
            ) from error

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.pictures[index], self.counts[index]


class SceneClassifierRecipe(Recipe):
    """Train the embedded classifier on scenes (or any COCO instances file with 48 categories)."""

    def __init__(
        self,
        data: str,
        epochs: int = 8,
        batch_size: int = 64,
        rate: float = 4e-3,
        seed: int = 0,
        channels: int = 96,
        limit: int | None = None,
    ) -> None:
        """Name data and hyperparameters.

        Args:
            data: Folder that `mmcam scenes` wrote.
            epochs: Passes over the data.
            batch_size: Pictures a step.
            rate: Highest learning rate.
            seed: Of weights and order.
            channels: k of the explained layer.
            limit: Use the first pictures only.
        """
        check_counts(batch_size=batch_size, channels=channels, limit=limit)
        self.data, self.epochs, self.batch_size, self.rate, self.seed = data, epochs, batch_size, rate, seed
        self.channels, self.limit = channels, limit

    def build(self) -> nn.Module:
        """A random classifier."""
        return SceneClassifier(self.channels)

    def examples(self, model: nn.Module, device: torch.device) -> Instances:
        """Pictures and counts of the training split."""
        return self._instances("train", model, self.limit)

    def loss(self, model: nn.Module, batch: Any) -> Tensor:  # noqa: ANN401
        """Presence by cross-entropy, counts by the Poisson likelihood."""
        assert isinstance(model, SceneClassifier)
        images, counts = batch
        activations = model.features(images.contiguous(memory_format=torch.channels_last))
        presence = binary_cross_entropy_with_logits(model.classify(activations), (counts > 0).float())
        return counts.shape[1] * (presence + 0.3 * poisson_nll_loss(model.counts(activations), counts, log_input=False))

    def measure(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Share of validation pictures whose kinds, and whose counts of every kind, are all right."""
        assert isinstance(model, SceneClassifier)
        data = self._instances("val", model, None)
        kinds = counts = 0
        with torch.no_grad():
            for images, truth in DataLoader(data, 64):
                activations = model.features(images.to(device))
                kinds += int(((model.classify(activations).cpu() > 0) == (truth > 0)).all(1).sum())
                counts += int((model.counts(activations).cpu().round() == truth).all(1).sum())
        return {"kinds_right": kinds / len(data), "counts_right": counts / len(data)}

    def _instances(self, split: str, model: Any, limit: int | None) -> Instances:  # noqa: ANN401
        root = Path(self.data)
        file = root / "annotations" / f"instances_{split}.json"
        data = Instances(root / split, file, model, limit)
        if len(data.names) != len(NAMES):
            raise UserError(f"{file}: expected {len(NAMES)} categories, one a logit; got {len(data.names)}")
        return data
