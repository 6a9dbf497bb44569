use super::*;

/// A pool with everything that lines cannot follow: a queue with a knee, a cache cliff, steps of
/// prefill chunks; noise of 5 %.
fn world(n: usize, seed: u64) -> Vec<(Row, f32)> {
    let mut rng = Rng::with_seed(seed);
    (0..n)
        .map(|_| {
            let running = rng.u32(..60) as f32;
            let row = Row {
                kv_cache_percentage: (running / 60.0 * 0.9 + 0.1 * rng.f32()).min(1.0),
                input_token_length: (2f32.powf(5.0 + 8.0 * rng.f32())).floor(),
                num_request_waiting: (running - 40.0).max(0.0) + rng.u32(..3) as f32,
                num_request_running: running,
                prefix_cache_score: rng.u32(..5) as f32 / 4.0,
                prefill_tokens_in_flight: rng.u32(..20_000) as f32,
                ..Row::default()
            };
            (row, truth(&row) * (1.0 + 0.1 * (rng.f32() - 0.5)))
        })
        .collect()
}

fn truth(row: &Row) -> f32 {
    let chunks = (row.effective_input_tokens() / 512.0).ceil().max(1.0);
    let cliff = if row.kv_cache_percentage > 0.85 { 2.5 } else { 1.0 };
    let queue = 30.0 * row.num_request_waiting.powf(1.3);
    (8.0 + chunks * (6.0 + 0.2 * row.num_request_running)
        + queue
        + 0.004 * row.prefill_tokens_in_flight)
        * cliff
}

fn rows(grid: &Grid, samples: &[(Row, f32)]) -> Rows {
    let mut rows = Rows::default();
    samples.iter().for_each(|(row, y)| rows.push(grid, row, y.ln()));
    rows
}

fn grow(samples: &[(Row, f32)], options: &BoostOptions, objective: Objective) -> (Grid, Forest) {
    let grid = Grid::of(samples.iter().map(|(row, _)| row), options.bins);
    let (train, test) = samples.split_at(samples.len() * 9 / 10);
    let (train, test) = (rows(&grid, train), rows(&grid, test));
    let mut boosting =
        Boosting::new(options, (objective, 0.9), Target::FirstToken, &grid, train, test, 1);
    while boosting.grow() {}
    (grid, boosting.finish())
}

fn answers(grid: &Grid, forest: &Forest, row: &Row) -> f32 {
    let bins = grid.row(row).map(|bin| [bin; crate::block::LANES]);
    let mut out = [0.0; crate::block::LANES];
    forest.lanes(&bins, 0, crate::block::VECTOR, &mut out);
    out[0]
}

fn mape(world: &[(Row, f32)], mut answer: impl FnMut(&Row) -> f32) -> f32 {
    world.iter().map(|(row, _)| (answer(row) / truth(row) - 1.0).abs()).sum::<f32>()
        / world.len() as f32
}

#[test]
fn a_forest_beats_the_ridge_where_lines_fail() {
    let samples = world(3_000, 1);
    let (grid, forest) = grow(&samples, &BoostOptions::default(), Objective::Mean);
    let mut ridge = crate::ridge::Ridge::new(Target::FirstToken, 1.0);
    for (row, y) in &samples {
        ridge.observe(&row.linear_columns(), f64::from(*y));
    }
    let linear = ridge.fit(1.0);
    let unseen = world(500, 2);
    let boosted = mape(&unseen, |row| answers(&grid, &forest, row));
    let straight = mape(&unseen, |row| linear.one(row).0);
    assert!(boosted < 0.10 && boosted < straight / 2.0, "forest {boosted}, ridge {straight}");
}

#[test]
fn oblivious_trees_are_about_as_good_as_ordinary_ones() {
    let samples = world(3_000, 1);
    let unseen = world(500, 2);
    let (grid, forest) = grow(&samples, &BoostOptions::default(), Objective::Mean);
    let oblivious = mape(&unseen, |row| answers(&grid, &forest, row));
    let ordinary = ordinary::Boosted::new(&rows(&grid, &samples));
    let reference = mape(&unseen, |row| ordinary.answer(&grid.row(row)));
    assert!(oblivious < reference + 0.02, "oblivious {oblivious}, ordinary {reference}");
}

#[test]
fn pinball_loss_finds_the_quantile() {
    let mut rng = Rng::with_seed(4);
    let samples: Vec<(Row, f32)> = (0..4_000)
        .map(|_| {
            let row = Row { num_request_running: rng.u32(..30) as f32, ..Row::default() };
            (row, (10.0 + row.num_request_running) * (0.5 + rng.f32()))
        })
        .collect();
    let options = BoostOptions { gamma: 0.0, ..BoostOptions::default() };
    let (grid, forest) = grow(&samples, &options, Objective::Quantile);
    for running in [2.0, 15.0, 28.0] {
        let row = Row { num_request_running: running, ..Row::default() };
        let ratio = answers(&grid, &forest, &row) / ((10.0 + running) * 1.4);
        assert!((ratio - 1.0).abs() < 0.08, "{running}: {ratio}");
    }
}

#[test]
fn growing_stops_when_rows_held_out_gain_nothing() {
    let mut rng = Rng::with_seed(4);
    let noise: Vec<(Row, f32)> =
        world(1_000, 3).into_iter().map(|(row, _)| (row, 10.0 + rng.f32())).collect();
    let options = BoostOptions { gamma: 0.0, ..BoostOptions::default() };
    let (_, forest) = grow(&noise, &options, Objective::Mean);
    assert!(forest.len() < 40, "{}", forest.len());
    let (_, forest) = grow(&noise, &BoostOptions::default(), Objective::Mean);
    assert_eq!(forest.len(), 0, "gamma lets noise grow nothing");
}

#[test]
fn no_rows_and_constant_rows_are_a_constant() {
    for samples in [vec![], vec![(Row::default(), 20.0); 50]] {
        let (grid, forest) = grow(&samples, &BoostOptions::default(), Objective::Mean);
        let expected = if samples.is_empty() { 1.0 } else { 20.0 };
        assert!((answers(&grid, &forest, &Row::default()) - expected).abs() < 1e-3);
    }
}

/// Boosting as the reference does it: 200 trees of depth 6 at rate 0.05, each node with a question of
/// its own.
mod ordinary {
    use super::super::{BINS, Rows, soft};
    use crate::features::TREE_COLUMNS;

    enum Node {
        Leaf(f32),
        Cut { column: usize, threshold: u8, sides: Box<[Node; 2]> },
    }

    pub(super) struct Boosted {
        base: f32,
        trees: Vec<Node>,
    }

    impl Boosted {
        pub(super) fn new(rows: &Rows) -> Self {
            let base = rows.y.iter().sum::<f32>() / rows.len() as f32;
            let mut fit = vec![base; rows.len()];
            let mut rng = fastrand::Rng::with_seed(1);
            let mut trees = Vec::new();
            for _ in 0..200 {
                let gradient: Vec<f32> = fit.iter().zip(&rows.y).map(|(f, y)| f - y).collect();
                let drawn = (0..rows.len()).filter(|_| rng.f32() < 0.8).collect();
                let mut columns: Vec<usize> = (0..TREE_COLUMNS).collect();
                rng.shuffle(&mut columns);
                columns.truncate(9);
                let tree = node(rows, &gradient, drawn, &columns, 6);
                for (row, fit) in fit.iter_mut().enumerate() {
                    *fit += walk(&tree, &rows.bins(row));
                }
                trees.push(tree);
            }
            Self { base, trees }
        }

        pub(super) fn answer(&self, bins: &[u8; TREE_COLUMNS]) -> f32 {
            (self.base + self.trees.iter().map(|tree| walk(tree, bins)).sum::<f32>()).exp()
        }
    }

    fn walk(node: &Node, bins: &[u8; TREE_COLUMNS]) -> f32 {
        match node {
            Node::Leaf(value) => *value,
            Node::Cut { column, threshold, sides } => {
                walk(&sides[usize::from(bins[*column] > *threshold)], bins)
            }
        }
    }

    fn worth(sum: f32, weight: f32) -> f32 {
        soft(sum, 0.01).powi(2) / (weight + 0.1)
    }

    fn node(
        rows: &Rows,
        gradient: &[f32],
        drawn: Vec<usize>,
        columns: &[usize],
        depth: usize,
    ) -> Node {
        let sum: f32 = drawn.iter().map(|row| gradient[*row]).sum();
        let weight = drawn.len() as f32;
        let mut best = (0.2, None);
        for &column in columns.iter().filter(|_| depth > 0) {
            let mut cells = [(0.0, 0.0); BINS];
            for &row in &drawn {
                let cell = &mut cells[usize::from(rows.columns[column][row])];
                *cell = (cell.0 + gradient[row], cell.1 + 1.0);
            }
            let (mut left, mut left_weight) = (0.0, 0.0);
            for (threshold, cell) in cells.iter().enumerate() {
                left += cell.0;
                left_weight += cell.1;
                if left_weight >= 5.0 && weight - left_weight >= 5.0 {
                    let gain = 0.5
                        * (worth(left, left_weight) + worth(sum - left, weight - left_weight)
                            - worth(sum, weight));
                    if gain > best.0 {
                        best = (gain, Some((column, threshold as u8)));
                    }
                }
            }
        }
        let Some((column, threshold)) = best.1 else {
            return Node::Leaf(-0.05 * soft(sum, 0.01) / (weight + 0.1));
        };
        let (right, left): (Vec<usize>, Vec<usize>) =
            drawn.into_iter().partition(|row| rows.columns[column][*row] > threshold);
        let sides = [left, right].map(|side| node(rows, gradient, side, columns, depth - 1));
        Node::Cut { column, threshold, sides: Box::new(sides) }
    }
}
