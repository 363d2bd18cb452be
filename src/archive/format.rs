//! The formats that an archive may have.

/// How members are put together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// DEFLATE in stored blocks, ZIP64 if sizes or counts need it, no links.
    #[default]
    Zip,
    /// ustar with pax records.
    Tar,
}

impl Format {
    /// Both, in the order in which they are offered.
    pub const ALL: [Format; 2] = [Format::Zip, Format::Tar];

    /// Its name in a link, and the end of a file's name without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Zip => "zip",
            Format::Tar => "tar",
        }
    }
}
