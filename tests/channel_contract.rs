//! Every channel keeps the same contract: each claim of `support/channel_contract.rs` is one test
//! per channel.

#[path = "support/channel_contract.rs"]
mod channel_contract;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use channel_contract::Options;
use forebay::channel::Channel;
use forebay::channel::file::{FileChannel, FileChannelOptions};
use forebay::channel::memory::{MemoryChannel, MemoryOptions};
use forebay::env::clock;
use forebay::env::disk_real::RealDisk;

/// One module of tests for one channel: `$open` makes a fresh, empty channel from [`Options`].
macro_rules! contract {
    ($channel:ident, $open:expr) => {
        contract!($channel, $open,
            put_then_take_in_order
            a_blocking_put_is_the_same_put
            a_take_stops_at_its_byte_limit
            rollback_returns_in_order
            commit_of_a_prefix_keeps_the_rest
            a_full_channel_refuses_after_the_keep_alive
            a_waiting_put_goes_on_when_room_is_made
            returned_events_may_exceed_capacity
            staged_events_stop_counting
            competing_takers_partition
            competing_blocks_are_bounded
            a_single_block_grows
            seal_is_a_compare_and_set
            unread_events_cannot_be_sealed
            seal_takes_the_front
            done_acknowledges
            abandon_returns
            too_large_is_refused
            positions_come_back
            positions_alone_need_no_room
            nothing_lost_and_nothing_twice
            a_put_wakes_waiting_takers
            close_wakes_all_waiters
        );
    };
    ($channel:ident, $open:expr, $($claim:ident)*) => {
        mod $channel {
            use super::*;
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $claim() {
                    channel_contract::$claim($open).await;
                }
            )*
        }
    };
}

fn open_memory(options: Options) -> Arc<dyn Channel> {
    let options = MemoryOptions {
        capacity: options.capacity,
        transaction_capacity: options.transaction_capacity,
        keep_alive: options.keep_alive,
        ..MemoryOptions::default()
    };
    MemoryChannel::open("c1", options).expect("opens")
}

contract!(memory, open_memory);

fn open_file(options: Options) -> Arc<dyn Channel> {
    // The channel outlives this call; what an earlier run has left is removed.
    static DIRECTORY: LazyLock<PathBuf> = LazyLock::new(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("channel_contract");
        if directory.exists() {
            std::fs::remove_dir_all(&directory).expect("the leavings of an earlier run go");
        }
        directory
    });
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let options = FileChannelOptions {
        data_dirs: vec![DIRECTORY.join(number.to_string())],
        capacity: options.capacity,
        transaction_capacity: options.transaction_capacity,
        keep_alive: options.keep_alive,
        max_file_size: 1 << 20,
        minimum_required_space: 1 << 20,
        ..FileChannelOptions::default()
    };
    FileChannel::open("c1", options, Arc::new(RealDisk), clock::system()).expect("opens")
}

contract!(file, open_file);
