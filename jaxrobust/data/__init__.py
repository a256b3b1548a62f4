"""Data sets in memory or streamed, and the order in which training sees them."""

from jaxrobust.data._batches import epoch_order as epoch_order
from jaxrobust.data._cifar import cifar10 as cifar10
from jaxrobust.data._cifar import cifar100 as cifar100
from jaxrobust.data._dataset import Dataset as Dataset
from jaxrobust.data._digits import digits as digits
from jaxrobust.data._folder import folder_source as folder_source
from jaxrobust.data._folder import image_folder as image_folder
from jaxrobust.data._generated import Generated as Generated
from jaxrobust.data._generated import generated as generated
from jaxrobust.data._generated import mixed_order as mixed_order
from jaxrobust.data._generated import mixed_steps as mixed_steps
from jaxrobust.data._mnist import mnist as mnist
from jaxrobust.data._npz import npz as npz
from jaxrobust.data._sources import Source as Source
from jaxrobust.data._stream import Stream as Stream
from jaxrobust.data._stream import indices_of_steps as indices_of_steps
from jaxrobust.data._stream import stream as stream
from jaxrobust.data._streamed import Streamed as Streamed
from jaxrobust.data._streamed import streamed as streamed
from jaxrobust.data._synthetic import synthetic as synthetic
from jaxrobust.data._tfds import tfds as tfds
from jaxrobust.data._tfds import tfds_source as tfds_source
