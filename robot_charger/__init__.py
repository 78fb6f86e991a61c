"""A DC fast-charging station whose robot plugs the vehicle in: ROS 2 nodes, protocols and simulators."""

from pkgutil import extend_path

# Run from the source tree after an ordinary install, the generated msg, srv and action are elsewhere on
# sys.path: this finds them.
__path__ = extend_path(__path__, __name__)
__version__ = "0.1.0"
