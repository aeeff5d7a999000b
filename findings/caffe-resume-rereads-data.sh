#!/bin/sh
# A snapshot of Caffe says nothing of where the data layers are. A resumed training reads all data from the first record
# again, in its test nets as well, and it repeats the test at the iteration of its snapshot. Where test_iter does not
# cover the data in whole passes, that test sees other records than before: two logs of one training have two values of
# one test. Here a test reads one of three records, whose value it prints.
here=$(dirname "$(readlink -f "$0")")
VERSION="1.0.0+git20180821.99bd997-8+b2"
FOLDER=$(mktemp -d)
. "$here/debian_caffe"

caffe_python -c 'import h5py, numpy
with h5py.File("data.h5", "w") as file: file["x"] = numpy.array([[1], [2], [3]], "f4")'
echo data.h5 >list
cat >net.prototxt <<'NET'
layer { name: "d" type: "DummyData" top: "a" top: "b" include { phase: TRAIN }
        dummy_data_param { shape { dim: 1 dim: 1 } shape { dim: 1 dim: 1 } } }
layer { name: "ip" type: "InnerProduct" bottom: "a" top: "ip" include { phase: TRAIN } inner_product_param { num_output: 1 } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "b" top: "loss" include { phase: TRAIN } }
layer { name: "t" type: "HDF5Data" top: "x" include { phase: TEST } hdf5_data_param { source: "list" batch_size: 1 } }
NET
cat >solver.prototxt <<'SOLVER'
net: "net.prototxt" test_iter: 1 test_interval: 1 max_iter: 4 base_lr: 1 lr_policy: "fixed" snapshot: 2
snapshot_prefix: "s" snapshot_after_train: false solver_mode: CPU
SOLVER
values() { sed -n 's/.*Test net output #0: x = \([0-9]\).*/\1/p' "$1" | tr '\n' ' '; }
caffe train --solver=solver.prototxt >whole 2>&1
caffe train --solver=solver.prototxt --snapshot=s_iter_2.solverstate >resumed 2>&1
echo "tests at 0 to 4, one process:        $(values whole)"
echo "tests at 2 to 4, resumed at 2:       $(values resumed)"
[ "$(values whole)" = "1 2 3 1 2 " ] || fail "an unbroken training reads other records"
[ "$(values resumed)" = "1 2 3 " ] || fail "a resumed training reads other records"
