"""One person's orientation, as the fields of `Person`."""

import numpy as np

from mppe_ros.orientation import root_orientations


def root_orientation(joints_mm, skeleton, error, doubt=1.0):
    """Of (J, 3): quaternion and covariance; None and None where it is unknown."""
    (orientation,), (covariance,) = root_orientations(joints_mm[None], skeleton, error, doubt)
    return (None, None) if np.isnan(orientation[0]) else (orientation, covariance)
