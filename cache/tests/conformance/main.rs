//! What every device has to do, whichever it is. A device joins by one line.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod files;
mod leases;
mod moves;
mod partial;
#[path = "../patch/files.rs"]
#[allow(dead_code)]
mod patch_files;
mod patches;
#[path = "../cuda/driver/mod.rs"]
#[allow(dead_code)]
mod simulated_driver;
#[path = "../support/mod.rs"]
mod support;
mod weights;

use std::sync::Arc;

use plimsoll_cache::Storage;
#[cfg(feature = "cuda")]
use plimsoll_cache::device::Cuda;
use plimsoll_cache::device::{Device, Host, Simulated};

#[global_allocator]
static ALLOCATOR: plimsoll_profiles::Selected = plimsoll_profiles::Selected;

/// Makes a device with so many bytes of memory, or with as many as there are where it has no limit
/// of its own.
type Make = fn(u64) -> Arc<dyn Device>;

macro_rules! tests {
    ($module:ident: $($test:ident,)*) => {$(
        #[test]
        fn $test() {
            crate::$module::$test(MAKE);
        }
    )*};
}

macro_rules! conforms {
    ($($(#[$when:meta])* $device:ident: $make:expr;)*) => {$(
        $(#[$when])*
        mod $device {
            use super::*;

            const MAKE: Make = $make;
            tests! { weights:
                every_type_of_element_is_as_in_the_file,
                empty_tensors_scalars_and_a_model_without_tensors_are_held,
                shards_are_one_model,
                staging_of_any_size_gives_the_same_bytes,
                a_load_from_ram_gives_what_a_load_from_files_gives,
                a_charge_covers_the_bytes_and_all_of_it_comes_back,
                a_tensor_that_is_kept_stays_right_and_counted,
                weights_that_are_only_dropped_leave_what_is_kept_counted,
                loads_at_the_same_time_do_not_mix,
                a_load_that_fails_gives_all_of_it_back,
                a_load_that_does_not_fit_is_refused_with_numbers,
                expectations_in_any_order_do_no_harm,
                a_name_and_a_tier_stay,
            }
            tests! { leases:
                a_lease_brings_a_model_and_keeps_it,
                a_lease_is_all_or_nothing,
                models_are_leased_on_different_devices_at_once,
                a_model_is_leased_on_both_at_once,
                another_device_is_granted_where_there_is_no_room,
                working_memory_is_declared_and_given_back,
                a_model_comes_back_from_its_copy_in_ram,
                copies_in_ram_are_not_kept_where_they_are_not_wanted,
                a_failed_load_leaves_every_tier_as_it_was,
                tensors_outlive_their_lease_and_count,
            }
            tests! { moves:
                evict_and_clear_leave_what_is_leased,
                offload_keeps_a_model_in_ram,
                room_is_made_as_far_as_possible,
                prefetch_brings_and_pins_nothing,
                a_dropped_model_goes_at_the_last_release_on_every_tier,
                the_picture_agrees_with_usage,
            }
            tests! { patches:
                patches_are_merged_where_the_model_is_and_the_rest_is_shared,
                patches_lie_beside_where_they_are_asked_for_or_nothing_else_fits,
                patches_come_where_the_model_is_granted,
                a_patch_that_cannot_be_read_leaves_the_device_as_it_was,
            }
            tests! { partial:
                a_model_larger_than_its_budget_is_leased_in_part,
                a_part_gives_way_to_others_and_grows_back,
                tensors_out_of_a_pool_outlive_their_lease_and_count,
            }
        }
    )*};
}

conforms! {
    host_heap: |bytes| Arc::new(Host::new(Storage::Heap, bytes));
    host_anonymous: |bytes| Arc::new(Host::new(Storage::Anonymous, bytes));
    host_pinned_by_a_simulated_driver: |bytes| {
        let driver = simulated_driver::Simulated::new();
        let device = driver.device(bytes).unwrap();
        let host = Host::new(Storage::Pinned, bytes);
        // It lives as long as what it locks.
        std::mem::forget(driver);
        Arc::new(host.with_page_locker(device.page_locker(), None))
    };
    host_mapped: |bytes| Arc::new(Host::new(Storage::Mapped, bytes));
    simulated: |bytes| Arc::new(Simulated::new(bytes));
    cuda_on_a_simulated_driver: |bytes| {
        Arc::new(simulated_driver::Simulated::new().device(bytes).unwrap())
    };
    // candle's tensors on the first device, which `scripts/check-cuda` simulates the driver of.
    #[cfg(feature = "cuda")]
    cuda: |bytes| Arc::new(Cuda::new(0).unwrap().within(bytes));
}
