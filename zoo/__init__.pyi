# The public names of zoo: what lazy_loader loads them from, and what type checkers read.
from .board.runs import leaderboard as leaderboard
from .model.generate import generate as generate
from .nn.backbone import Backbone as Backbone
from .nn.backbone import Output as Output
from .nn.backbone import State as State
from .nn.state import check_state as check_state
from .run.request import bench as bench
from .run.trained import load as load
from .spec.architecture import Architecture as Architecture
from .spec.architecture import Capabilities as Capabilities
from .spec.architecture import Cost as Cost
from .spec.architecture import ModelDims as ModelDims
from .spec.architecture import Paper as Paper
from .spec.architecture import Reference as Reference
from .spec.constraints import Activation as Activation
from .spec.constraints import BlockConfig as BlockConfig
from .spec.constraints import Fraction as Fraction
from .spec.constraints import NonNegativeFloat as NonNegativeFloat
from .spec.constraints import NonNegativeInt as NonNegativeInt
from .spec.constraints import PositiveFloat as PositiveFloat
from .spec.constraints import PositiveInt as PositiveInt
from .spec.errors import ConfigError as ConfigError
from .spec.errors import DataError as DataError
from .spec.errors import MissingFiles as MissingFiles
from .spec.errors import UserError as UserError
from .spec.errors import ZooError as ZooError
from .spec.positions import RopeScaling as RopeScaling
from .spec.positions import SelfExtend as SelfExtend
from .spec.presets import Preset as Preset
from .spec.presets import Reported as Reported
from .spec.registry import hookimpl as hookimpl
from .spec.registry import registry as registry
from .spec.task import Source as Source
from .spec.task import SourceFile as SourceFile
from .spec.task import Task as Task

__version__: str
