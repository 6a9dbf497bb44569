//! The little linear algebra of the ridge: symmetric positive matrices of one fixed size.

use crate::features::LINEAR_COLUMNS as D;

pub(crate) type Matrix = [[f64; D]; D];

/// Mean and covariance of the weights.
pub(crate) fn posterior(
    gram: &Matrix,
    moment: &[f64; D],
    alpha: f64,
    lambda: f64,
) -> ([f64; D], Matrix) {
    let precision: Matrix = std::array::from_fn(|i| {
        std::array::from_fn(|j| alpha * gram[i][j] + if i == j { lambda } else { 0.0 })
    });
    let factor = lower_factor(&precision);
    let mut covariance = [[0.0; D]; D];
    for column in 0..D {
        let mut unit = [0.0; D];
        unit[column] = 1.0;
        for (row, value) in solve(&factor, unit).iter().enumerate() {
            covariance[row][column] = *value;
        }
    }
    let weights = solve(&factor, moment.map(|m| alpha * m));
    (weights, covariance)
}

/// The Cholesky factor L with LL' = the matrix. A pivot that rounding made negative is lifted.
pub(crate) fn lower_factor(matrix: &Matrix) -> Matrix {
    let mut factor = [[0.0; D]; D];
    for i in 0..D {
        for j in 0..=i {
            let known: f64 = (0..j).map(|k| factor[i][k] * factor[j][k]).sum();
            let rest = matrix[i][j] - known;
            factor[i][j] = if i == j {
                rest.max(1e-12 * matrix[i][i].abs()).max(1e-30).sqrt()
            } else {
                rest / factor[j][j]
            };
        }
    }
    factor
}

/// Solves LL'x = b.
fn solve(factor: &Matrix, b: [f64; D]) -> [f64; D] {
    let mut x = b;
    for i in 0..D {
        let known: f64 = (0..i).map(|k| factor[i][k] * x[k]).sum();
        x[i] = (x[i] - known) / factor[i][i];
    }
    for i in (0..D).rev() {
        let known: f64 = (i + 1..D).map(|k| factor[k][i] * x[k]).sum();
        x[i] = (x[i] - known) / factor[i][i];
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factor_and_solution_belong_to_the_matrix() {
        let mut rng = fastrand::Rng::with_seed(2);
        let root: Matrix = std::array::from_fn(|_| std::array::from_fn(|_| rng.f64() - 0.5));
        let matrix: Matrix = std::array::from_fn(|i| {
            std::array::from_fn(|j| (0..D).map(|k| root[i][k] * root[j][k]).sum())
        });
        let b: [f64; D] = std::array::from_fn(|i| i as f64);
        let x = solve(&lower_factor(&matrix), b);
        for (row, b) in matrix.iter().zip(b) {
            let product: f64 = row.iter().zip(x).map(|(m, x)| m * x).sum();
            assert!((product - b).abs() < 1e-6, "{product} for {b}");
        }
    }

    #[test]
    fn a_singular_matrix_yields_numbers() {
        let x = solve(&lower_factor(&[[1.0; D]; D]), [1.0; D]);
        assert!(x.iter().all(|x| x.is_finite()));
    }
}
