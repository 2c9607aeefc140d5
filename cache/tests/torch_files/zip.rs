//! Zip files as PyTorch writes them: plain entries, data aligned to 64 bytes, sizes behind the data,
//! a directory with its end in zip64.

use std::sync::LazyLock;

/// What an entry is, and what is claimed of it.
#[derive(Debug, Clone)]
pub struct Entry {
    pub name: Vec<u8>,
    pub data: Vec<u8>,
    pub flags: u16,
    pub method: u16,
    /// The sizes in the directory, if not that of the data: in the file, unpacked.
    pub claims: Option<[u32; 2]>,
    /// Where the directory says that it begins, if not where it does.
    pub begin: Option<u32>,
}

#[derive(Debug, Clone)]
pub struct Zip {
    pub entries: Vec<Entry>,
}

impl Zip {
    /// A checkpoint named `test` around a pickle and its storages.
    pub fn around(pickle: &[u8], storages: &[(String, Vec<u8>)]) -> Zip {
        let mut zip = Zip {
            entries: Vec::new(),
        };
        zip.add("test/data.pkl", pickle)
            .add("test/byteorder", "little");
        for (key, data) in storages {
            zip.add(&format!("test/data/{key}"), data);
        }
        let id = "1146442723849355041500001092702204552171";
        zip.add("test/version", "3\n")
            .add("test/.data/serialization_id", id);
        zip
    }

    pub fn add(&mut self, name: &str, data: impl AsRef<[u8]>) -> &mut Zip {
        self.entries.push(Entry {
            name: name.as_bytes().to_vec(),
            data: data.as_ref().to_vec(),
            flags: 0x0808,
            method: 0,
            claims: None,
            begin: None,
        });
        self
    }

    pub fn entry(&mut self, name: &str) -> &mut Entry {
        let mut entries = self.entries.iter_mut();
        entries.find(|entry| entry.name == name.as_bytes()).unwrap()
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut file = Vec::new();
        let mut directory = Vec::new();
        for entry in &self.entries {
            let begin = file.len();
            let (name, data) = (&entry.name, &entry.data);
            // `getPadding` in caffe2/serialize/inline_container.cc.
            let padding = 64 - (begin + 30 + name.len() + 4) % 64;
            numbers(&mut file, &[(4, 0x0403_4b50), (2, 0)]);
            let [flags, method] = [entry.flags, entry.method].map(u64::from);
            numbers(
                &mut file,
                &[(2, flags), (2, method), (4, 0), (4, 0), (4, 0), (4, 0)],
            );
            numbers(
                &mut file,
                &[(2, name.len() as u64), (2, padding as u64 + 4)],
            );
            file.extend(name);
            file.extend(b"FB");
            numbers(&mut file, &[(2, padding as u64)]);
            file.extend(std::iter::repeat_n(b'Z', padding));
            file.extend(data);
            let sum = u64::from(crc(data));
            let size = data.len() as u64;
            numbers(
                &mut file,
                &[(4, 0x0807_4b50), (4, sum), (4, size), (4, size)],
            );

            let [stored, unpacked] = entry.claims.unwrap_or([data.len() as u32; 2]);
            let begin = entry.begin.map_or(begin as u64, u64::from);
            numbers(
                &mut directory,
                &[(4, 0x0201_4b50), (4, 0), (2, flags), (2, method), (4, 0)],
            );
            numbers(
                &mut directory,
                &[(4, sum), (4, stored.into()), (4, unpacked.into())],
            );
            numbers(
                &mut directory,
                &[(2, name.len() as u64), (4, 0), (8, 0), (4, begin)],
            );
            directory.extend(name);
        }
        let begin = file.len() as u64;
        file.extend(&directory);
        end(
            &mut file,
            self.entries.len() as u64,
            begin,
            directory.len() as u64,
        );
        file
    }
}

/// The records behind a directory, `file` ending with that.
pub fn end(file: &mut Vec<u8>, entries: u64, begin: u64, bytes: u64) {
    let at = begin + bytes;
    end_at(file, at, entries, begin, bytes);
}

/// The same, with the place of the first record told, since `file` may be only its end.
pub fn end_at(file: &mut Vec<u8>, at: u64, entries: u64, begin: u64, bytes: u64) {
    numbers(file, &[(4, 0x0606_4b50), (8, 44), (4, 0x002d_031e), (8, 0)]);
    numbers(file, &[(8, entries), (8, entries), (8, bytes), (8, begin)]);
    numbers(file, &[(4, 0x0706_4b50), (4, 0), (8, at), (4, 1)]);
    let [short, begin, bytes] = [
        (entries, 0xffff),
        (begin, 0xffff_ffff),
        (bytes, 0xffff_ffff),
    ]
    .map(|(number, most)| number.min(most));
    numbers(file, &[(4, 0x0605_4b50), (4, 0), (2, short), (2, short)]);
    numbers(file, &[(4, bytes), (4, begin), (2, 0)]);
}

/// Appends each number in so many bytes, the least first.
pub fn numbers(to: &mut Vec<u8>, numbers: &[(usize, u64)]) {
    for &(bytes, number) in numbers {
        to.extend(&number.to_le_bytes()[..bytes]);
    }
}

/// The sums of single bytes.
static SUMS: LazyLock<[u32; 256]> = LazyLock::new(|| {
    let step = |sum: u32, _| (sum >> 1) ^ if sum & 1 == 1 { 0xedb8_8320 } else { 0 };
    std::array::from_fn(|byte| (0..8).fold(byte as u32, step))
});

fn crc(bytes: &[u8]) -> u32 {
    let sums = &*SUMS;
    let step = |sum: u32, byte: &u8| (sum >> 8) ^ sums[(sum as u8 ^ byte) as usize];
    !bytes.iter().fold(!0, step)
}
