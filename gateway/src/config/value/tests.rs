use super::*;
use crate::config::value::mac::mac;

fn string(text: &str) -> DeValue<'_> {
    DeValue::String(text.into())
}

#[test]
fn durations_have_a_unit_and_a_range() {
    let kind = Time(Duration::from_millis(10), Duration::from_mins(1));
    let parse = |text| kind.parse(&string(text));
    assert_eq!(parse("300ms"), Ok(Duration::from_millis(300)));
    assert_eq!(parse("1m"), Ok(Duration::from_mins(1)));
    for bad in [
        "",
        "s",
        "1.5s",
        "-1s",
        "5",
        "5 s",
        "5S",
        "9ms",
        "2m",
        "99999999999999999999s",
    ] {
        assert!(parse(bad).is_err(), "{bad:?}");
    }
    assert_eq!(
        parse("18446744073709551615h").unwrap_err().what,
        "is out of range"
    );
    assert_eq!(written(Duration::from_millis(1_500)), "1500ms");
    assert_eq!(written(Duration::from_hours(2)), "2h");
}

#[test]
fn host_bits_are_refused_with_the_network() {
    let wrong = Network.parse(&string("10.2.3.4/16")).unwrap_err();
    assert_eq!(
        wrong.help.as_deref(),
        Some("the network is \"10.2.0.0/16\"")
    );
    assert!(Network.parse(&string("fd00::/129")).is_err());
    assert!(InterfaceAddress.parse(&string("10.2.3.4/16")).is_ok());
    assert!(InterfaceAddress.parse(&string("10.2.0.0/16")).is_err());
    assert!(InterfaceAddress.parse(&string("10.2.255.255/16")).is_err());
    assert!(InterfaceAddress.parse(&string("172.16.0.0/31")).is_ok());
}

#[test]
fn keys_are_points_of_the_curve_in_base64() {
    let good = PrivateKey::generate().unwrap().public_key();
    assert_eq!(Key.parse(&string(&good.to_string())), Ok(good.0));
    for bad in ["", "not base64!", &PublicKey([0; 32]).to_string()] {
        assert!(Key.parse(&string(bad)).is_err(), "{bad}");
    }
}

#[test]
fn a_mac_is_of_one_station() {
    assert_eq!(mac("02:00:00:00:00:0a"), Some([2, 0, 0, 0, 0, 10]));
    for bad in [
        "",
        "02:00",
        "03:00:00:00:00:00",
        "00:00:00:00:00:00",
        "02:00:00:00:00:00:00",
        "+2:00:00:00:00:00",
        "2:0:0:0:0:1",
    ] {
        assert_eq!(mac(bad), None, "{bad}");
    }
}

#[test]
fn slips_find_their_word_and_others_do_not() {
    let words = ["prefixes", "probe", "public_key"];
    assert_eq!(nearest("prefxies", words), Some("prefixes"));
    assert_eq!(nearest("Public_Key", words), Some("public_key"));
    assert_eq!(nearest("mtu", words), None);
}

#[test]
fn numbers_of_any_size_and_sign_are_held_to_the_range() {
    let table = |text: &str| {
        let text = format!("n = {text}");
        toml::de::DeTable::parse(&text)
            .map(|table| Whole(1, 4094).parse(table.get_ref()["n"].get_ref()))
            .unwrap()
    };
    assert_eq!(table("0x10"), Ok(16));
    for bad in [
        "0",
        "4095",
        "-1",
        "99999999999999999999999999999999999999999",
        "1.0",
        "\"1\"",
    ] {
        assert!(table(bad).is_err(), "{bad}");
    }
}
