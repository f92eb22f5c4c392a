"""Students: smaller networks that imitate a run's encoder, so that they stand in its place before the same items."""

from train.students.contract import Student, StudentSettings, open_students
from train.students.distil import distil

__all__ = ["Student", "StudentSettings", "distil", "open_students"]
