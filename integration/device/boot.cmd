# Chooses a slot and starts its kernel. Runs in U-Boot 2023.01 for qemu-x86, which cannot add: numbers are counted down by a table.
#
# Two blocks of 4 KiB at sectors 0x800 and 0x808 hold the state as U-Boot holds its environment (a CRC-32, then NAME=VALUE, each with a zero byte):
# boot_seq, boot_good (a or b), boot_try (a, b or none), boot_left (0 to 9). Of two whole blocks that with the higher boot_seq counts, and of equal ones that
# with the lower boot_left: the system writes with a new number, this script only ever counts down, into the block that does not count.
setenv a_seq none; setenv b_seq none
if virtio read 0x2000000 800 8 && env import -c 0x2000000 1000 boot_seq boot_good boot_try boot_left; then
	setenv a_seq ${boot_seq}; setenv a_good ${boot_good}; setenv a_try ${boot_try}; setenv a_left ${boot_left}
fi
if virtio read 0x2000000 808 8 && env import -c 0x2000000 1000 boot_seq boot_good boot_try boot_left; then
	setenv b_seq ${boot_seq}; setenv b_good ${boot_good}; setenv b_try ${boot_try}; setenv b_left ${boot_left}
fi
setenv from none
if test ${a_seq} != none; then setenv from a; fi
if test ${b_seq} != none; then
	if test ${a_seq} = none; then
		setenv from b
	elif test ${b_seq} -gt ${a_seq}; then
		setenv from b
	elif test ${b_seq} -eq ${a_seq}; then
		if test ${b_left} -lt ${a_left}; then setenv from b; fi
	fi
fi
setenv boot_good a; setenv boot_try none; setenv boot_left 0; setenv boot_seq 0
if test ${from} = a; then
	setenv boot_seq ${a_seq}; setenv boot_good ${a_good}; setenv boot_try ${a_try}; setenv boot_left ${a_left}
	setenv next 808
elif test ${from} = b; then
	setenv boot_seq ${b_seq}; setenv boot_good ${b_good}; setenv boot_try ${b_try}; setenv boot_left ${b_left}
	setenv next 800
fi

setenv slot ${boot_good}
if test ${boot_try} != none; then
	setenv fewer none
	if test ${boot_left} = 1; then setenv fewer 0; fi
	if test ${boot_left} = 2; then setenv fewer 1; fi
	if test ${boot_left} = 3; then setenv fewer 2; fi
	if test ${boot_left} = 4; then setenv fewer 3; fi
	if test ${boot_left} = 5; then setenv fewer 4; fi
	if test ${boot_left} = 6; then setenv fewer 5; fi
	if test ${boot_left} = 7; then setenv fewer 6; fi
	if test ${boot_left} = 8; then setenv fewer 7; fi
	if test ${boot_left} = 9; then setenv fewer 8; fi
	if test ${fewer} != none; then
		setenv boot_left ${fewer}
		env export -c -s 1000 0x2000000 boot_seq boot_good boot_try boot_left
		# A trial that is not counted could be tried for ever.
		if virtio write 0x2000000 ${next} 8 && virtio read 0x2100000 ${next} 8 && cmp.b 0x2000000 0x2100000 1000; then
			setenv slot ${boot_try}
		fi
	fi
fi

echo "KAKOI state from=${from} seq=${boot_seq} good=${boot_good} try=${boot_try} left=${boot_left} slot=${slot}"
setenv start 'if test ${slot} = b; then setenv part 3; else setenv part 2; fi; setenv bootargs console=ttyS0 quiet panic=5 kakoi.slot=${slot}; load virtio 0:${part} 0x4000000 /boot/vmlinuz && setenv kernel_bytes ${filesize} && load virtio 0:${part} 0x30000000 /boot/initrd && zboot 0x4000000 ${kernel_bytes} 0x30000000 ${filesize}'
run start
echo "KAKOI slot ${slot} does not start"
# A trial has been counted. Where the good slot does not start, the other one is better than nothing.
if test ${slot} = ${boot_good}; then
	if test ${slot} = a; then setenv slot b; else setenv slot a; fi
	run start
fi
reset
