//! Owns the profiles that come with the program: the files of `profiles/`, as they are.

/// The profiles that come with the program: each one's id and its file.
pub const READY: [(&str, &str); 8] = [
    (
        "braze-subscription-status",
        include_str!("../../../profiles/braze-subscription-status.yaml"),
    ),
    (
        "braze-users-track",
        include_str!("../../../profiles/braze-users-track.yaml"),
    ),
    (
        "generic-50",
        include_str!("../../../profiles/generic-50.yaml"),
    ),
    (
        "google-customer-match",
        include_str!("../../../profiles/google-customer-match.yaml"),
    ),
    ("hubspot", include_str!("../../../profiles/hubspot.yaml")),
    ("iterable", include_str!("../../../profiles/iterable.yaml")),
    ("klaviyo", include_str!("../../../profiles/klaviyo.yaml")),
    (
        "meta-custom-audiences",
        include_str!("../../../profiles/meta-custom-audiences.yaml"),
    ),
];

/// The file of the profile with this id, where it comes with the program.
#[must_use]
pub fn ready(id: &str) -> Option<&'static str> {
    READY
        .iter()
        .find_map(|(known, file)| (*known == id).then_some(*file))
}

#[cfg(test)]
mod tests;
