"""The part of MegEngine/Models that this repository stands for.

Both have a package of this name. Where a checkout of MegEngine/Models is on Python's path, too, its
other models are found beside ours: ``official.vision.detection`` there builds on
``official.vision.classification.resnet`` here.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
