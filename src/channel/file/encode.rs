//! From a batch of events to encoded frames, in the producer's own thread.

use wal_format::{FrameKind, PutEncoder};

use super::log::{Entry, EntryOp};
use crate::channel::PutBatch;

/// Encodes a put transaction. A frame is closed before it passes the `target` size, so that
/// damage costs little; every frame carries the transaction's positions, because its events name
/// them.
pub(super) fn encode_put(batch: PutBatch, target: usize) -> Entry {
    let positions: Vec<(Vec<u8>, Vec<u8>)> = batch
        .positions
        .iter()
        .map(|p| (p.key.as_bytes().to_vec(), p.value.to_vec()))
        .collect();
    let payload: usize = batch.events.iter().map(|e| e.event.body.len() + 16).sum();
    let mut frames = Vec::new();
    let mut encoder = PutEncoder::with_capacity(payload.min(2 * target));
    let close = |mut encoder: PutEncoder| {
        for (key, value) in &positions {
            encoder.position(key, value);
        }
        encoder.finish()
    };
    for put in &batch.events {
        let size = put.event.body.len();
        if encoder.count() > 0 && encoder.body_len() + size > target {
            frames.push(close(std::mem::take(&mut encoder)));
        }
        encoder.event(put.event.headers.iter(), &put.event.body, put.position);
    }
    frames.push(close(encoder));
    let count = batch.events.len() as u64;
    Entry {
        kind: FrameKind::Put,
        frames,
        op: EntryOp::Put { count, positions },
        put_time_ms: None,
    }
}
