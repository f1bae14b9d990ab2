//! A session recorded once and played to many signers: the bench measures them, not the driver.

use bitcoin::Transaction;

use super::{Ask, Driver, DriverError};
use crate::pipeline::{ChannelRef, Outcome};

/// One message and the channel it names.
pub type Asked = (Option<ChannelRef>, Vec<u8>);

/// The messages of one channel's life. Keys and nonces come from seeds alone, so any node with the seed of the recorded
/// one, and a channel opened by the same script, answers them all.
#[derive(Clone)]
pub struct Script {
    /// Up to the funding transaction.
    pub opening: Vec<Asked>,
    /// To be confirmed before the first advance.
    pub funding: Transaction,
    /// Five messages each.
    pub advances: Vec<Vec<Asked>>,
}

impl Script {
    /// Plays channel `dbid` to the signer behind `ask` and takes it down: `advances` state advances with `htlcs` HTLCs
    /// each. `confirm` has the funding transaction confirmed.
    pub fn record(
        ask: &mut Ask<'_>,
        dbid: u64,
        confirm: impl FnOnce(&Transaction),
        advances: usize,
        htlcs: usize,
    ) -> Result<Self, DriverError> {
        let mut opening = Vec::new();
        let mut driver = Driver::open(&mut recording(ask, &mut opening), dbid)?;
        confirm(driver.funding());
        let advances = (0..advances).map(|_| {
            let mut asked = Vec::new();
            driver.advance(&mut recording(ask, &mut asked), htlcs)?;
            Ok(asked)
        });
        let advances = advances.collect::<Result<_, _>>()?;
        Ok(Self { opening, funding: driver.funding().clone(), advances })
    }
}

/// Asks on, and notes what was asked.
fn recording<'a>(
    ask: &'a mut Ask<'_>,
    asked: &'a mut Vec<Asked>,
) -> impl FnMut(Option<ChannelRef>, Vec<u8>) -> Outcome + 'a {
    move |channel, message| {
        asked.push((channel, message.clone()));
        ask(channel, message)
    }
}
