//! Over a restart: everything but the running retrain and the record of past scores.

use super::{Learner, Trainer};
use crate::calibration::{BUFFER, Calibrator};
use crate::codec::{Reader, Writer};
use crate::error::{Error, intact};
use crate::factors::FactorTable;
use crate::models::Models;
use crate::options::Options;
use crate::reservoir::{Kept, SAMPLE_LEN};
use crate::ridge::Ridge;
use crate::sample::Target;

const MAGIC: [u8; 8] = *b"INLLATST";
const VERSION: u32 = 1;

impl Trainer {
    /// The state as bytes, for [`load`](Self::load): at most 64 MB with every bound at its highest,
    /// at most about 6 MB with the defaults. The newest samples are kept.
    pub fn save(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.u64(self.now);
        out.u64(self.retrains);
        out.u64(self.since_retrain);
        self.models.encode(&mut out);
        for learner in &self.learners {
            learner.ridge.encode(&mut out);
            learner.calibrators.iter().for_each(|calibrator| calibrator.encode(&mut out));
            let samples = learner.reservoir.newest(self.options.max_saved_samples);
            for (len, samples) in [
                (samples.len(), &mut samples.iter() as &mut dyn Iterator<Item = &Kept>),
                (learner.held.len(), &mut learner.held.iter()),
            ] {
                out.count(len);
                samples.for_each(|sample| sample.encode(&mut out));
            }
        }
        self.factors.encode(&mut out);
        out.seal(MAGIC, VERSION)
    }

    /// A trainer that goes on where another was saved. The settings may differ from those.
    ///
    /// # Errors
    /// A setting outside its range; bytes that [`save`](Self::save) did not write. Start anew then.
    pub fn load(options: Options, bytes: &[u8]) -> Result<Self, Error> {
        let mut trainer = Self::new(options)?;
        let options = &trainer.options;
        let mut from = Reader::open(bytes, MAGIC, VERSION)?;
        let now = from.u64("now")?;
        let retrains = from.u64("retrains")?;
        let since_retrain = from.u64("since retrain")?;
        intact("now", now as f64, "below 2^62", now >> 62 == 0)?;
        let models = Models::decode(&mut from)?;
        for (target, learner) in Target::ALL.into_iter().zip(&mut trainer.learners) {
            learner.decode(target, options, now, &mut from)?;
        }
        trainer.factors = FactorTable::decode(options.max_endpoints, &mut from)?;
        from.finish()?;
        trainer.rng = fastrand::Rng::with_seed(options.seed ^ now);
        (trainer.now, trainer.retrains) = (now, retrains);
        (trainer.since_retrain, trainer.models) = (since_retrain, models);
        Ok(trainer)
    }
}

impl Learner {
    fn decode(
        &mut self,
        target: Target,
        options: &Options,
        now: u64,
        from: &mut Reader<'_>,
    ) -> Result<(), Error> {
        self.ridge = Ridge::decode(target, options.forgetting, from)?;
        for calibrator in &mut self.calibrators {
            *calibrator = Calibrator::decode(options.quantile, options.calibration_step, from)?;
        }
        for _ in 0..from.count("samples", 200_000, SAMPLE_LEN)? {
            self.reservoir.push(sample(now, from)?);
        }
        for _ in 0..from.count("held samples", BUFFER, SAMPLE_LEN)? {
            self.hold(sample(now, from)?);
        }
        Ok(())
    }
}

fn sample(now: u64, from: &mut Reader<'_>) -> Result<Kept, Error> {
    let sample = Kept::decode(from)?;
    let measured = sample.y_ms > 0.0 && sample.y_ms <= 1e8;
    intact("sample y", sample.y_ms.into(), "above 0 and at most 1e8", measured)?;
    intact("sample time", sample.at as f64, "not after the present", sample.at <= now)?;
    Ok(sample)
}
