//! iPXE scripts: pure text (ipxe.org/scripting).

use crate::{
    boot::{facts::ServerFacts, files},
    model::{Mac, Ticket, Work},
};

/// Starts the agent, with the address that iPXE has (`${ip}` is iPXE's to fill in), whoever's DHCP server gave it. A failed
/// download is tried again; after five times the script itself is fetched anew, so that a machine whose ticket ended meanwhile goes
/// on to its disk.
pub fn install(ticket: &Ticket, token: &str, facts: &ServerFacts) -> String {
    let (attempt, mac) = (&ticket.attempt, ticket.mac);
    let what = match &ticket.work {
        Work::Install { install, .. } => format!("installed with {}", install.image.name),
        Work::Wipe(order) => format!("WIPED by {} and switched off", order.method),
    };
    let (kernel, initramfs) = (facts.boot_url(files::KERNEL), facts.boot_url(files::INITRAMFS));
    let (https, fingerprint, script) = (facts.https(), facts.fingerprint, facts.script_url(mac));
    let more: String = facts.kernel_arguments.iter().map(|argument| format!(" {argument}")).collect();
    format!(
        "#!ipxe\n\
         echo Rackwright: {attempt}: this machine will be {what}\n\
         set tries:int32 0\n\
         :fetch\n\
         kernel {kernel} initrd={name} rackwright.url={https} rackwright.fingerprint={fingerprint} rackwright.token={token} \
         rackwright.mac={mac} rackwright.ip=${{ip}}:${{netmask}}:${{gateway}}{more} || goto again\n\
         initrd --name {name} {initramfs} || goto again\n\
         boot || goto again\n\
         :again\n\
         echo Rackwright: could not start the agent; trying again in 5 seconds\n\
         imgfree\n\
         sleep 5\n\
         inc tries\n\
         iseq ${{tries}} 5 || goto fetch\n\
         :script\n\
         chain --replace {script} || sleep 5\n\
         goto script\n",
        name = files::INITRAMFS,
    )
}

/// Goes on to the machine's disk. Which way depends on the firmware that iPXE runs on, not on what the manifest says: under
/// UEFI `sanboot` finds no drive and `exit` ends in the firmware's menu, under BIOS there is no loader to chain.
pub fn local_boot(mac: Mac, why: &str, facts: &ServerFacts) -> String {
    let loader = facts.boot_url(files::LOCALBOOT);
    let why: String = why.chars().filter(|c| c.is_ascii_alphanumeric() || " -.,:#".contains(*c)).collect();
    format!(
        "#!ipxe\n\
         echo Rackwright: {mac}: {why}; booting from disk\n\
         iseq ${{platform}} efi && goto efi || goto bios\n\
         :bios\n\
         sanboot --no-describe --drive 0x80 || goto failed\n\
         :efi\n\
         chain {loader} || goto failed\n\
         :failed\n\
         echo Rackwright: could not boot from disk; going on with the firmware's boot order\n\
         sleep 5\n\
         exit 1\n"
    )
}

/// Whether `text` can stand on a kernel command line in an iPXE script: iPXE expands `${`, splits at blanks, and reads `||`,
/// `&&` and `#` as its own.
pub fn is_kernel_argument(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('#') && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"$|&\"'\\".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::testing;

    #[test]
    fn the_install_script_carries_all_that_the_agent_needs() {
        let mut facts = testing::facts();
        facts.kernel_arguments = vec!["console=ttyS0".to_owned()];
        insta::assert_snapshot!(install(&testing::ticket(), "aa55", &facts), @r"
        #!ipxe
        echo Rackwright: web-01#3: this machine will be installed with debian-12
        set tries:int32 0
        :fetch
        kernel http://10.0.4.1/boot/kernel initrd=initramfs rackwright.url=https://10.0.4.1:8443 rackwright.fingerprint=sha256:0000000000000000000000000000000000000000000000000000000000000000 rackwright.token=aa55 rackwright.mac=52:54:00:12:34:56 rackwright.ip=${ip}:${netmask}:${gateway} console=ttyS0 || goto again
        initrd --name initramfs http://10.0.4.1/boot/initramfs || goto again
        boot || goto again
        :again
        echo Rackwright: could not start the agent; trying again in 5 seconds
        imgfree
        sleep 5
        inc tries
        iseq ${tries} 5 || goto fetch
        :script
        chain --replace http://10.0.4.1/ipxe/52:54:00:12:34:56 || sleep 5
        goto script
        ");
    }

    #[test]
    fn the_local_boot_script_asks_the_firmware_what_it_is() {
        let script = local_boot(testing::MAC, "no install is due", &testing::facts());
        assert!(script.contains("sanboot --no-describe --drive 0x80 ||"));
        assert!(script.contains("chain http://10.0.4.1/boot/localboot.efi ||"));
        assert!(!script.contains("token"));
        let script = local_boot(testing::MAC, "a\nexit ${x} || b", &testing::facts());
        assert_eq!(script.lines().nth(1), Some("echo Rackwright: 52:54:00:12:34:56: aexit x  b; booting from disk"));
    }

    #[test]
    fn kernel_arguments_cannot_break_out_of_the_script() {
        for good in ["console=ttyS0,115200n8", "quiet", "a.b=c:d/e"] {
            assert!(is_kernel_argument(good), "{good}");
        }
        for bad in ["", "a b", "a\nb", "${net0/mac}", "||", "&&", "#x", "\"x\""] {
            assert!(!is_kernel_argument(bad), "{bad}");
        }
    }
}
