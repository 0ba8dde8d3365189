# The generated messages (mppe_ros.msg) lie in the built package's folder, this Python in the
# source tree too: extend_path joins all folders of this name on sys.path, so that neither hides
# the other.
__path__ = __import__("pkgutil").extend_path(__path__, __name__)
