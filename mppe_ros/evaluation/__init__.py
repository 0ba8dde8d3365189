"""How good are the results: measured against ground truth. Imports the core, never ROS."""
