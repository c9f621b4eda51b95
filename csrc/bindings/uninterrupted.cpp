// A context manager whose exit no signal handler can cut off.
//
// Python runs signal handlers on the main thread, between bytecodes: whatever they raise (KeyboardInterrupt,
// the RuntimeError of a DataLoader whose worker died) may strike the first instruction of any Python
// function, also that of an
// `__exit__`. Here entry and exit are C++. The Python function that undoes what was done runs on a thread of
// its own, which no handler visits, while the main thread waits for it: the handlers run afterwards, as if
// the signal had come then.
#include <pybind11/pybind11.h>

#include <system_error>
#include <thread>

#include "bindings/define.h"

namespace py = pybind11;

namespace {

/// An exception on its way from one thread to another; empty where there is none.
class Raised {
  public:
    static Raised fetch() {
        Raised raised;
        PyObject *type = nullptr, *value = nullptr, *trace = nullptr;
        PyErr_Fetch(&type, &value, &trace);
        PyErr_NormalizeException(&type, &value, &trace);
        if (value != nullptr && trace != nullptr) PyException_SetTraceback(value, trace);
        Py_XDECREF(type);
        Py_XDECREF(trace);
        raised.value_ = py::reinterpret_steal<py::object>(value);
        return raised;
    }

    explicit operator bool() const { return bool(value_); }

    [[noreturn]] void raise() const {
        PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(value_.ptr())), value_.ptr());
        throw py::error_already_set();
    }

  private:
    py::object value_;
};

class Uninterrupted {
  public:
    static constexpr int kTries = 100;

    Uninterrupted(py::object enter, py::object leave, bool apart)
        : enter_(std::move(enter)), leave_(std::move(leave)), apart_(apart) {}

    py::object enter() {
        py::object result, ignored;
        const Raised raised = call(enter_, result);
        if (!raised) return result;
        run([&] { leave(ignored); });
        raised.raise();
    }

    void exit(const py::object&, const py::object& value, const py::object&) {
        Raised raised;
        py::object result = py::none();
        run([&] { raised = leave(result); });
        if (raised) raised.raise();  // Python itself makes the body's exception the context of this one
        if (result.is_none()) return;
        if (!value.is_none()) {
            if (py::hasattr(value, "add_note"))
                value.attr("add_note")(py::str(result));  // Python 3.11 and later
        } else {
            PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(result.ptr())), result.ptr());
            throw py::error_already_set();
        }
    }

  private:
    static Raised call(const py::object& function, py::object& result) {
        PyObject* made = PyObject_CallNoArgs(function.ptr());
        if (made == nullptr) return Raised::fetch();
        result = py::reinterpret_steal<py::object>(made);
        return {};
    }

    /// Calls `leave` until it comes to its end; gives the first exception that cut it off.
    Raised leave(py::object& result) const {
        Raised first = call(leave_, result);
        Raised again = first;
        for (int i = 1; again && i < kTries; ++i) again = call(leave_, result);
        return first;
    }

    template <class Work>
    void run(const Work& work) const {
        if (!apart_) return work();
        const py::gil_scoped_release release;
        std::thread thread;
        try {
            thread = std::thread([&] {
                const py::gil_scoped_acquire acquire;
                work();
            });
        } catch (const std::system_error&) {  // no more threads are to be had
            const py::gil_scoped_acquire acquire;
            return work();
        }
        thread.join();
    }

    py::object enter_, leave_;
    bool apart_;
};

}  // namespace

void define_uninterrupted(py::module_& m) {
    py::class_<Uninterrupted>(m, "Uninterrupted")
        .def(py::init<py::object, py::object, bool>(), py::arg("enter"), py::arg("leave"), py::arg("apart"),
             "A context manager that calls `enter`, and on leaving `leave`, on a thread of its own where "
             "`apart` is set. Where "
             "an exception cuts `leave` off it is called again, until it comes to its end; where it returns "
             "an exception, that "
             "is raised, unless there is one already.")
        .def("__enter__", &Uninterrupted::enter)
        .def("__exit__", &Uninterrupted::exit);
}
