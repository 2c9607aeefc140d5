//! The XML of `malloc_info(3)`.

/// What it says of an arena, in their order in the ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ArenaInfo {
    /// In fastbins.
    pub fast: Total,
    /// In bins, and from glibc 2.28 on the top.
    pub rest: Total,
    /// From the system now.
    pub current: u64,
    /// The most it ever had.
    pub max: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Total {
    pub count: u64,
    pub size: u64,
}

impl ArenaInfo {
    /// The free bytes of the arena, from glibc 2.28 on. The sizes of chunks in bins are summed with
    /// a flag in the lowest bit (`__malloc_info` does not mask it), that of the top is not.
    pub fn free(&self) -> u64 {
        self.fast.size + self.rest.size - (self.rest.count - 1)
    }

    /// The rest of the arena.
    pub fn in_use(&self) -> u64 {
        self.current - self.free()
    }
}

pub fn arenas(xml: &str) -> Vec<ArenaInfo> {
    xml.split("<heap ")
        .skip(1)
        .map(|heap| heap.split("</heap>").next().unwrap())
        .map(|heap| ArenaInfo {
            fast: total(heap, "<total type=\"fast\""),
            rest: total(heap, "<total type=\"rest\""),
            current: total(heap, "<system type=\"current\"").size,
            max: total(heap, "<system type=\"max\"").size,
        })
        .collect()
}

/// Nothing where there is no such element: glibc 2.43 has no fastbins.
fn total(xml: &str, element: &str) -> Total {
    let Some((_, rest)) = xml.split_once(element) else {
        return Total::default();
    };
    let attributes = rest.split('>').next().unwrap();
    let attribute = |name: &str| {
        let (_, value) = attributes.split_once(&format!("{name}=\""))?;
        value.split('"').next()?.parse().ok()
    };
    Total {
        count: attribute("count").unwrap_or(0),
        size: attribute("size").unwrap(),
    }
}
