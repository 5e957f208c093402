"""Whether saving features pays: their size, and after how many epochs they have saved more time than they cost."""

import math
from dataclasses import dataclass

from cambrian_model.config import CambrianConfig

ROW_FACTS = 40  # bytes beside the features of a picture: its hash (16), size (16) and checksum (8)
READ_BYTES_PER_SECOND = 2e9  # a single NVMe drive, or one's share of a parallel file system
WRITE_BYTES_PER_SECOND = 1e9


@dataclass(frozen=True)
class CacheEstimate:
    """What saved features cost and save.

    Attributes:
        num_images: Pictures, each counted once.
        bytes_per_image: Of all encoders.
        bytes: Of all pictures.
        encoder_flops_per_image: Of all encoders, forward.
        break_even_epochs: Epochs after which the cache has paid for itself: infinite where reading takes longer than
            encoding; None where the speed of the devices is not known.
    """

    num_images: int
    bytes_per_image: int
    bytes: int
    encoder_flops_per_image: float
    break_even_epochs: float | None


def estimate(
    config: CambrianConfig,
    num_unique_images: int,
    dtype_bytes: int,
    encoder_flops_per_image: float,
    *,
    images_per_epoch: float | None = None,
    flops_per_second: float | None = None,
    read_bytes_per_second: float = READ_BYTES_PER_SECOND,
    write_bytes_per_second: float = WRITE_BYTES_PER_SECOND,
) -> CacheEstimate:
    """Estimates size and break-even of saved features.

    With N pictures, I of them (with repetition) seen in an epoch, b bytes and F floating-point operations per picture,
    s operations per second of all devices, r and w bytes per second read and written by all of them together:

        once:        N F / s + N b / w      to encode and write every picture
        each epoch:  I F / s - I b / r      saved, less what reading takes
        break-even = once / each epoch

    Reading is counted as if it stood in the way of computing. In workers that keep up it does not, and files that fit
    into memory are read from the disk once, so that the true break-even is earlier, but never before N F / s is saved.
    Decoding pictures, which the cache saves too, is not counted.

    Args:
        config: Of the model.
        num_unique_images: Pictures, each counted once.
        dtype_bytes: Of a number that an encoder returns: 4 in float32, also under autocast where a norm comes last.
        encoder_flops_per_image: Forward, of all encoders.
        images_per_epoch: Pictures seen in an epoch; by default each once.
        flops_per_second: What all devices reach: their number, times their peak, times the utilization.
        read_bytes_per_second: Of the storage, for all ranks.
        write_bytes_per_second: Likewise.
    """
    per_image = sum(encoder.num_tokens * encoder.width for encoder in config.encoders) * dtype_bytes
    per_image += ROW_FACTS * len(config.encoders)
    epochs = None
    if flops_per_second is not None:
        encode, read = encoder_flops_per_image / flops_per_second, per_image / read_bytes_per_second
        once = num_unique_images * (encode + per_image / write_bytes_per_second)
        saved = (num_unique_images if images_per_epoch is None else images_per_epoch) * (encode - read)
        epochs = once / saved if saved > 0 else math.inf
    return CacheEstimate(num_unique_images, per_image, num_unique_images * per_image, encoder_flops_per_image, epochs)
