//! Model-server facts: metric names per engine and the scanner of metric pages.
